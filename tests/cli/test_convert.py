"""`palate convert` from the command line."""

from __future__ import annotations

import json

from palate.cli.main import main


def test_it_writes_a_scorer_that_score_reads(root, tmp_path, capsys):
    fixtures = root / "tests" / "parity" / "fixtures"
    words = ["--tokenizer", str(fixtures / "tokenizer" / "bpe_small.txt.gz")]
    hps, out = str(fixtures / "hps_v1" / "hpc_tiny.pt"), tmp_path / "models" / "hps-v1"
    command = ["convert", hps, str(out), "--scorer", "hps-v1", *words, "--half"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert told.startswith("hps-v1@official, 2.4 MB: ")
    assert told.endswith("its scores are those of hpc_tiny.pt, bit for bit\n")
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["scorer"], result["half"], result["identical"]) == ("hps-v1", True, True)
    score = [
        *("score", str(fixtures / "images" / "square_256.png"), "--prompt", "a red fox", "--json"),
        "--scorer",
    ]
    assert main([*score, str(out)]) == 0
    ours = json.loads(capsys.readouterr().out)["scores"]
    assert main([*score, "hps-v1", "--weights", hps, *words]) == 0
    assert json.loads(capsys.readouterr().out)["scores"] == ours


def test_it_says_what_half_loses(root, tmp_path, capsys):
    fixtures = root / "tests" / "parity" / "fixtures"
    mps = str(fixtures / "mps" / "MPS_tiny_checkpoint.pth")
    words = ["--tokenizer", str(fixtures / "tokenizer")]
    assert main(["convert", mps, str(tmp_path / "out"), *words, "--half"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("mps@official, ")
    assert (
        "in 16 bits its scores differ from those of MPS_tiny_checkpoint.pth: by up to 0.0" in told
    )


def test_a_clip_without_a_name_is_one_sentence(root, tmp_path, capsys):
    hps = root / "tests" / "parity" / "fixtures" / "hps_v1" / "hpc_tiny.pt"
    assert main(["convert", str(hps), str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert "one of hps-v1, hps-v2, hps-v2.1, pickscore, clip-score\n" in told
    assert len(told.splitlines()) == 1
    assert main(["convert", str(tmp_path / "none.pt"), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.endswith("none.pt: no such weights file or folder\n")
    assert not (tmp_path / "out").exists()


def test_the_miniature_is_no_target(root, tmp_path, capsys):
    hps = root / "tests" / "parity" / "fixtures" / "hps_v1" / "hpc_tiny.pt"
    for name in ("miniature", "miniature@official"):
        assert main(["convert", str(hps), str(tmp_path / "out"), "--scorer", name]) == 2
        told = capsys.readouterr().err
        assert "miniature: its weights are in the package, so that there is nothing to" in told
        assert "expected one of hps-v1, " in told
    assert not (tmp_path / "out").exists()

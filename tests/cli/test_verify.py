"""`palate verify` from the command line, and its exit status."""

from __future__ import annotations

import json

import pytest

from palate.cli.main import main


@pytest.fixture
def fixtures(root):
    return root / "tests" / "parity" / "fixtures"


@pytest.fixture
def reward(fixtures):
    return [
        "verify",
        "image-reward",
        "--weights",
        str(fixtures / "image_reward/ImageReward_tiny.pt"),
    ]


@pytest.fixture
def hps(fixtures):
    words = ["--tokenizer", str(fixtures / "tokenizer" / "bpe_small.txt.gz")]
    return ["verify", "hps-v1", "--weights", str(fixtures / "hps_v1" / "hpc_tiny.pt"), *words]


def test_cases_that_match(hps, fixtures, capsys):
    cases = ["--cases", str(fixtures / "hps_v1" / "cases.json")]
    command = [*hps, *cases, "--images", str(fixtures / "images")]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "the 20 largest differences of 40 cases" in told
    assert "expected [hps]" in told
    assert f"expected: {fixtures / 'hps_v1' / 'cases.json'}" in told
    assert "published" not in told
    assert "matched: 40 of 40 within 0.01 hps (the default of 1e-4 for a cosine)" in told
    assert main([*command, "--json", "--promises"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["matched"]
    assert len(result["verification"]["rows"]) == 40
    assert result["broken_promises"] == []
    assert result["promises_kept"]
    assert main([*command, "--tolerance", "1e-12"]) == 1
    assert "\nnot matched: " in capsys.readouterr().out


def test_published_scores_that_do_not_match(reward, shared, capsys):
    command = [*reward, "--images", str(shared / "data" / "image_reward" / "images")]
    assert main(command) == 1
    told = capsys.readouterr().out
    assert "published: THUDM/ImageReward, README.md" in told
    assert told.count("NOT MATCHED") == 4
    assert "not matched: 0 of 4 within 0.005 reward (the README prints" in told


def test_wrong_input_is_status_2(reward, hps, fixtures, tmp_path, capsys):
    assert main([*reward, "--images", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "1.webp: no such picture; expected that of assets/images of THUDM/ImageReward" in told
    (tmp_path / "1.webp").write_bytes((fixtures / "images" / "square_512.webp").read_bytes())
    for number in (2, 3, 4):
        (tmp_path / f"{number}.webp").write_bytes(b"")
    assert main([*reward, "--images", str(tmp_path)]) == 2
    assert "1.webp: is another picture than the one of that score" in capsys.readouterr().err
    assert main(reward) == 2
    assert "--images: expected assets/images of THUDM/ImageReward" in capsys.readouterr().err
    assert main([*hps, "--tolerance", "1"]) == 2
    assert "--tolerance: goes with --cases" in capsys.readouterr().err
    assert main([*hps, "--cases", str(tmp_path / "none.json")]) == 2
    assert "--cases: goes with --images" in capsys.readouterr().err
    cases = ["--cases", str(tmp_path / "none.json"), "--images", str(tmp_path)]
    assert main([*hps, *cases]) == 2
    assert "none.json: not a readable JSON file" in capsys.readouterr().err
    assert main([*hps, *cases, "--tolerance", "-1"]) == 2
    assert "tolerance is -1, expected 0 or a larger number" in capsys.readouterr().err
    assert main([*hps, "--images", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "--images: no published score of hps-v1" in told
    assert "so nothing uses the pictures; expected --cases beside them" in told


def test_without_published_scores_the_promises_are_checked(hps, capsys, monkeypatch):
    assert main(hps) == 0
    told = capsys.readouterr().out
    assert "nothing was compared: no published score of hps-v1 with a picture is known" in told
    assert "matched" not in told
    assert told.endswith("every promise of a scorer is kept\n")
    assert main([*hps, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["matched"], result["promises_kept"]) == (None, True)
    broken = "palate.scoring.promises.check_scorer"
    monkeypatch.setattr(broken, lambda _: ["batch: alone, 3 of 13 scores differ"])
    assert main(hps) == 1
    assert "broken promises:\n  batch: alone, 3 of 13" in capsys.readouterr().out
    assert main([*hps, "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["matched"], result["promises_kept"]) == (None, False)

"""A folder with a SigLIP is a scorer like any other."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image as Picture

from palate.cli.main import main
from palate.errors import CheckpointError, DataError
from palate.models.clip_files import save_clip
from palate.models.siglip_files import save_siglip
from palate.models.tiny import tiny_clip
from palate.models.tiny_siglip import tiny_siglip
from palate.scoring.catalog import load
from palate.scoring.engine import Engine
from palate.scoring.networks import ClipScorer, SiglipScorer
from palate.scoring.promises import check_scorer

PROMPTS = ["a fox", "", "Two cats!", "a castle on a hill, at night, in the rain"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("siglip") / "tiny"
    save_siglip(tiny_siglip(0), folder)
    return folder


@pytest.fixture(scope="module")
def pictures():
    random = np.random.default_rng(0)
    sides = [(20 + 7 * number, 30) for number in range(30)]
    return [
        Picture.fromarray(random.integers(0, 256, (*side, 3), dtype=np.uint8)) for side in sides
    ]


def test_a_folder_says_which_network_it_holds(saved, tmp_path):
    scorer = load(saved)
    assert isinstance(scorer, SiglipScorer)
    assert (scorer.name, scorer.unit, scorer.dimension) == ("tiny", "cosine", "overall")
    assert scorer.card()["tokens"] == {"context": 24, "clean": "canonical", "pad": 1}
    save_clip(tiny_clip(0), tmp_path)
    assert isinstance(load(tmp_path), ClipScorer)


def test_a_card_names_scorer_unit_and_dimension(saved, tmp_path, pictures):
    save_siglip(tiny_siglip(0), tmp_path, name="fox", unit="logit", dimension="detail")
    scorer, plain = load(tmp_path), load(saved)
    assert (scorer.name, scorer.unit, scorer.dimension) == ("fox", "logit", "detail")
    assert scorer.fingerprint != plain.fingerprint
    cosines = plain.judge(pictures[:4], PROMPTS).values
    logits = scorer.judge(pictures[:4], PROMPTS).values
    assert logits == pytest.approx(np.exp(2.0) * cosines - 3.0, abs=1e-6)
    save_siglip(tiny_siglip(0), tmp_path, unit="rating")
    with pytest.raises(DataError, match="unit is 'rating', expected one of cosine"):
        load(tmp_path)


def test_logits_are_transformers_own(tmp_path, pictures):
    from transformers import AutoTokenizer, SiglipImageProcessorPil, SiglipModel

    save_siglip(tiny_siglip(0), tmp_path, unit="logit")
    scored = load(tmp_path).judge(pictures[:4], PROMPTS)
    clean = [tiny_siglip(0).tokenizer.cleaned(prompt) for prompt in PROMPTS]
    words = AutoTokenizer.from_pretrained(tmp_path)
    ids = words(clean, padding="max_length", truncation=True, return_tensors="pt").input_ids
    pixels = SiglipImageProcessorPil.from_pretrained(tmp_path)(pictures[:4], return_tensors="pt")
    with torch.no_grad():
        model = SiglipModel.from_pretrained(tmp_path).eval()
        logits = model(input_ids=ids, pixel_values=pixels.pixel_values).logits_per_image
    assert scored.values == pytest.approx(logits.diagonal().numpy(), abs=1e-5)
    assert scored.tokens_given.tolist() == [7, 1, 10, 41]
    assert scored.tokens_kept.tolist() == [7, 1, 10, 24]
    assert scored.area_kept.tolist() == [1.0] * 4


@pytest.mark.parametrize("unit", ["cosine", "logit", "hps"])
def test_the_scorer_keeps_its_promises(unit):
    assert check_scorer(SiglipScorer(tiny_siglip(0), "tiny", unit=unit)) == []


@pytest.mark.parametrize("activation", ["gelu_pytorch_tanh", "gelu", "quick_gelu"])
def test_openvino_computes_the_same_tower(activation, tmp_path, pictures):
    pytest.importorskip("openvino")
    save_siglip(tiny_siglip(0), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["hidden_act"] = activation
    (tmp_path / "config.json").write_text(json.dumps(config))
    prompts = [PROMPTS[0]] * len(pictures)
    scorer = load(tmp_path)
    exact = scorer.judge(pictures, prompts).values
    scorer.use(Engine("float32", "openvino"))
    assert scorer.judge(pictures, prompts).values == pytest.approx(exact, abs=1e-6)
    scorer.use(Engine("int8", "openvino"))
    drift = np.abs(scorer.judge(pictures, prompts).values - exact)
    assert 0 < drift.max() < 0.1 * np.ptp(exact)
    scorer.use(Engine("bfloat16"))
    drift = np.abs(scorer.judge(pictures, prompts).values - exact)
    assert 0 < drift.max() < 0.1 * np.ptp(exact)


def test_the_command_scores_with_a_folder(saved, pictures, tmp_path, capsys):
    place = tmp_path / "pictures"
    place.mkdir()
    for number, picture in enumerate(pictures):
        picture.save(place / f"{number:02d}.png")
    out = tmp_path / "scores.parquet"
    command = ["score", str(place), "--prompt", "A fox!", "--scorer", str(saved)]
    assert main([*command, "--out", str(out)]) == 0
    rows = pq.read_table(out)
    assert rows["error"].null_count == len(pictures)
    assert set(rows["scorer"].to_pylist()) == {"tiny"}
    assert set(rows["unit"].to_pylist()) == {"cosine"}
    alone = load(saved).judge(pictures, ["a fox"] * len(pictures)).values
    assert rows["value"].to_numpy() == pytest.approx(alone, abs=1e-6)


def test_naflex_is_refused_by_name(saved, tmp_path, capsys):
    config = json.loads((saved / "config.json").read_text()) | {"model_type": "siglip2"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="'siglip2', which is NaFlex"):
        load(tmp_path)
    picture = tmp_path / "fox.png"
    Picture.new("RGB", (40, 40)).save(picture)
    assert main(["score", str(picture), "--prompt", "x", "--scorer", str(tmp_path)]) == 2
    assert "NaFlex" in capsys.readouterr().err


def test_a_siglip_has_no_profiles(saved):
    with pytest.raises(CheckpointError, match="no profile 'gelu'"):
        load(f"{saved}@gelu")

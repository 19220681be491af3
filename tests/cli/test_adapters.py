"""Adapters on the command line: `palate convert` and `palate generate --adapter`."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from palate.adaptation.lora_files import add_lora, save_adapter
from palate.cli.main import main
from palate.data.tables import read_table
from palate.generation.families import FAMILIES
from palate.generation.generator import load_generator
from palate.generation.tiny import write_tiny_pipeline


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A generator, an adapter of ours, one from elsewhere and one in the form of the code of HPS."""
    folder = tmp_path_factory.mktemp("adapters")
    base = write_tiny_pipeline(folder / "tiny")
    details = {"method": "identifier", "base": "0" * 64, "base_name": "sd14", "guidance": 3.0}
    for name, said in (
        ("mine", {**details, "identifier": "Weird image. "}),
        ("second", {"identifier": "Bad. "}),
        ("foreign", {}),
    ):
        unet = load_generator(base).pipeline.unet
        draw = torch.Generator().manual_seed(len(name))
        for key, part in add_lora(unet, FAMILIES[0].targets, 2, 3.0, len(name)).items():
            if "lora_B" in key:
                part.data = torch.randn(part.shape, generator=draw)
        (folder / name).mkdir()
        save_adapter(unet, "unet", folder / name, said)
    old = {}
    for key, value in load_file(folder / "foreign" / "pytorch_lora_weights.safetensors").items():
        layer, _, side = key.removeprefix("unet.").rpartition(".lora.")
        inner, _, last = layer.removesuffix(".0").rpartition(".")
        old[f"{inner}.processor.{last}_lora.{side}"] = value
    torch.save(old, folder / "adapted_model.bin")
    return folder


def made(place, out, *words):
    common = ["--prompt", "a red ball", "--images", "1", "--steps", "2", "--out", str(out)]
    assert main(["generate", str(place / "tiny"), *common, *map(str, words)]) == 0
    images = read_table(out / "images.parquet", "images")
    return images["sha256"].to_pylist(), json.loads(images["settings"][0].as_py())


def test_a_converted_adapter_makes_the_same_image(place, tmp_path, capsys):
    for form in ("kohya", "diffusers"):
        path = tmp_path / f"{form}.safetensors"
        assert main(["convert", str(place / "mine"), str(path), "--format", form]) == 0
        told = capsys.readouterr().out
        assert told.startswith("adapter of 56 layers, rank 2, alpha 3, from diffusers to ")
        assert told.endswith("`palate generate` takes 'Weird image. ' as its negative prompt\n")
    shas, settings = made(place, tmp_path / "a", "--adapter", place / "mine")
    assert settings["negative_prompt"] == "Weird image. "
    told = capsys.readouterr().out
    assert "was trained on another base (sd14) than this one\n" in told
    assert "suggests a guidance of 3.0\n" in told
    for form in ("kohya", "diffusers"):
        path = tmp_path / f"{form}.safetensors"
        again, how = made(place, tmp_path / form, "--adapter", path, "--guidance", "7.5")
        assert (again, how["negative_prompt"]) == (shas, "Weird image. ")
        assert "suggests" not in capsys.readouterr().out


def test_the_published_adapter_takes_its_identifier_from_convert_or_from_negative(
    place, tmp_path, capsys
):
    old = place / "adapted_model.bin"
    words = ["--identifier", "Weird image. ", "--json"]
    assert main(["convert", str(old), str(tmp_path / "hps"), *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["read_as"], result["ranks"], result["alphas"]) == ("processors", [2], [2.0])
    shas, settings = made(place, tmp_path / "a", "--adapter", tmp_path / "hps")
    assert settings["negative_prompt"] == "Weird image. "
    given, _ = made(place, tmp_path / "b", "--adapter", old, "--negative", "Weird image. ")
    assert given == shas
    capsys.readouterr()
    none, settings = made(place, tmp_path / "c", "--adapter", old)
    assert settings["negative_prompt"] == ""
    assert none != shas
    assert "note: no negative prompt, since no adapter names" in capsys.readouterr().out
    assert main(["convert", str(old), str(tmp_path / "plain")]) == 0
    assert "note: it names no identifier" in capsys.readouterr().out


def test_several_adapters_with_strengths_are_recorded_and_their_order_changes_nothing(
    place, tmp_path
):
    mine, second = f"{place / 'mine'}:0.7", place / "second"
    shas, settings = made(place, tmp_path / "a", "--adapter", mine, "--adapter", second)
    assert [(one["name"], one["strength"]) for one in settings["adapters"]] == [
        ("mine", 0.7),
        ("second", 1.0),
    ]
    assert settings["negative_prompt"] == "Weird image. Bad."
    turned, _ = made(place, tmp_path / "b", "--adapter", second, "--adapter", mine)
    assert turned == shas
    alone, settings = made(place, tmp_path / "c", "--adapter", mine)
    assert alone != shas
    assert [one["strength"] for one in settings["adapters"]] == [0.7]
    half, settings = made(
        place, tmp_path / "d", "--adapter", place / "mine", "--strength", 0.5, "--adapter", second
    )
    assert [one["strength"] for one in settings["adapters"]] == [0.5, 0.5]
    assert half != shas
    left, settings = made(place, tmp_path / "e", "--adapter", mine, "--adapter", f"{second}:0")
    assert (left, settings["negative_prompt"]) == (alone, "Weird image. ")


def test_what_does_not_fit_together_is_one_sentence(root, place, tmp_path, capsys):
    hps = root / "tests" / "parity" / "fixtures" / "hps_v1" / "hpc_tiny.pt"
    mine, out = str(place / "mine"), str(tmp_path / "out")
    generate = ["generate", str(place / "tiny"), "--prompt", "a", "--out", out]
    cases = [
        ([*generate, "--adapter", f"{mine}:much"], "'much' after the colon is no strength"),
        ([*generate, "--adapter", f"{mine}:nan"], "'nan' after the colon is no strength"),
        ([*generate, "--adapter", mine, "--adapter", f"{mine}:2"], "is given twice"),
        ([*generate, "--adapter", "none:0.5"], "none: no such adapter file"),
        (["convert", mine, out, "--half"], "is an adapter, which --tokenizer"),
        (["convert", str(hps), out, "--format", "kohya"], "hpc_tiny.pt: is no adapter, expected"),
        (["convert", str(hps), out, "--identifier", "a"], "hpc_tiny.pt: is no adapter, expected"),
    ]
    for words, expected in cases:
        assert main(words) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ")
        assert expected in told
        assert len(told.splitlines()) == 1
    assert not (tmp_path / "out").exists()

"""Any text-to-image pipeline of diffusers makes images by its own call, and nothing else is taken for one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch

from palate.errors import CheckpointError, SettingsError
from palate.generation.calls import _no_text_to_image, load_pipeline, sample_by_call
from palate.generation.generate import GenerateSettings, generate
from palate.generation.generator import folder_fingerprint, load_generator
from palate.generation.tiny import tiny_pipeline, write_tiny_pipeline

PROMPTS = ["a red ball", "a blue cube, and more"]
QUICK = GenerateSettings(
    images_per_prompt=3, steps=2, batch=2, guidance=3.0, height=16, width=16, negative_prompt=""
)


def content(table):
    return dict(zip(table["image"].to_pylist(), table["sha256"].to_pylist(), strict=True))


def pixels(folder, table):
    return [np.asarray(PIL.Image.open(folder / path)) for path in table["path"].to_pylist()]


def own_call(folder, rows, **given):
    """The images of diffusers' own call, with the seeds of a table's rows, one prompt and one batch."""
    from diffusers import DiffusionPipeline

    index = json.loads((folder / "model_index.json").read_text())
    without = {name: None for name, one in index.items() if name.endswith("_3") and one[0] is None}
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, **without)
    pipeline.set_progress_bar_config(disable=True)
    draws = [torch.Generator().manual_seed(row["seed"]) for row in rows]
    texts = [row["prompt"] for row in rows]
    made = pipeline(texts, generator=draws, num_inference_steps=2, output_type="np", **given)
    return (made.images * 255).round()


@pytest.mark.parametrize("negative", ["Weird image.", ""])
def test_images_are_those_of_diffusers_own_call(other_base, other_kind, tmp_path, negative):
    """For SDXL also where no negative prompt is given: its call then takes zeros in its place."""
    settings = replace(QUICK, negative_prompt=negative, batch=3)
    table = generate(PROMPTS[:1], load_generator(other_base), tmp_path / "out", settings)
    given = {"negative_prompt": [negative] * 3} if negative else {}
    theirs = own_call(other_base, table.to_pylist(), guidance_scale=3.0, **given)
    ours = pixels(tmp_path / "out", table)
    assert max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True)) <= 1
    assert np.std(ours[0]) > 1
    said = json.loads(table["settings"][0].as_py())
    assert (said["guidance"], said["height"], said["width"]) == (3.0, 16, 16)
    assert table["generator"][0].as_py().startswith(f"{other_kind}@")


def same_in_any_company(folder, out):
    generator = load_generator(folder)
    made = generate(PROMPTS, generator, out / "made", QUICK)
    turned = generate(PROMPTS[::-1], generator, out / "turned", QUICK)
    alone = generate(PROMPTS[1:], load_generator(folder), out / "alone", QUICK)
    assert len(set(content(made).values())) == 6
    assert content(turned) == content(made)
    assert content(alone).items() <= content(made).items()
    lost = out / "made" / made["path"][4].as_py()
    lost.unlink()
    (out / "made" / "images.parquet").unlink()
    assert generate(PROMPTS, generator, out / "made", QUICK).equals(made)


def test_an_image_of_a_family_is_the_same_bytes_in_any_company(other_base, tmp_path):
    same_in_any_company(other_base, tmp_path)


@pytest.mark.parametrize("name", ["lcm", "flux"])
def test_an_image_of_another_class_is_the_same_bytes_in_any_company(request, name, tmp_path):
    folder = request.getfixturevalue(name)
    same_in_any_company(folder, tmp_path)
    made = tmp_path / "turned"
    record = json.loads((made / "run.json").read_text())["result"]
    assert record["guidance"] == 3.0
    rows = generate(PROMPTS[:1], load_generator(folder), tmp_path / "own", replace(QUICK, batch=3))
    theirs = own_call(folder, rows.to_pylist(), guidance_scale=3.0, height=16, width=16)
    ours = pixels(tmp_path / "own", rows)
    assert max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True)) == 0


@pytest.mark.parametrize("name", ["lcm", "flux", "sdxl"])
def test_only_a_family_has_several_prompts_in_one_call(request, name, tmp_path, monkeypatch):
    """Elsewhere the longest prompt of a call may decide the length of all."""
    folder = request.getfixturevalue(name) if name != "sdxl" else tmp_path / name
    if name == "sdxl":
        write_tiny_pipeline(folder, "sdxl")
    generator, calls = load_generator(folder), []
    own = type(generator).sample

    def heard(self, prompts, seeds, plan):
        calls.append(list(prompts))
        return own(self, prompts, seeds, plan)

    monkeypatch.setattr(type(generator), "sample", heard)
    generate(PROMPTS, generator, tmp_path / "out", QUICK)
    assert {len(prompts) for prompts in calls} == {2}
    mixed = sum(len(set(prompts)) > 1 for prompts in calls)
    assert (len(calls), mixed) == ((3, 1) if name == "sdxl" else (4, 0))


def test_a_size_that_is_not_given_is_the_calls_own(lcm, tmp_path):
    settings = replace(QUICK, images_per_prompt=1, height=None, width=None)
    table = generate(PROMPTS[:1], load_generator(lcm), tmp_path / "out", settings)
    assert (table["width"][0].as_py(), table["height"][0].as_py()) == (16, 16)
    assert json.loads(table["settings"][0].as_py())["height"] is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lcm", "the call of LatentConsistencyModelPipeline has no negative prompt"),
        ("flux", "its FluxTransformer2DModel was distilled to take the guidance as an input"),
    ],
)
def test_a_negative_prompt_that_would_not_be_read_is_refused(request, name, reason, tmp_path):
    generator = load_generator(request.getfixturevalue(name))
    with pytest.raises(SettingsError, match=reason):
        generate(PROMPTS, generator, tmp_path / "out", replace(QUICK, negative_prompt="bad"))
    assert not (tmp_path / "out").exists()


def test_qwens_guidance_goes_where_it_is_read_and_an_empty_negative_prompt_is_a_space():
    """The words of its call, heard by a stand-in with that call's parameters."""
    from diffusers import QwenImagePipeline

    heard = {}

    class Stand:
        transformer = type("Denoiser", (), {"config": {"guidance_embeds": False}})()

        def __call__(self, **given):
            heard.update(given)
            return type("Made", (), {"images": np.zeros((2, 8, 8, 3), np.float32)})()

    Stand.__call__.__signature__ = __import__("inspect").signature(QwenImagePipeline.__call__)
    plan = {"steps": 3, "guidance": 4.0, "height": None, "width": 8, "eta": 0.5}
    sample_by_call(Stand(), ["a", "b"], [1, 2], {**plan, "negative_prompt": ""})
    assert (heard["true_cfg_scale"], heard["negative_prompt"]) == (4.0, [" ", " "])
    assert heard.keys() & {"guidance_scale", "eta", "height"} == set()
    assert (heard["width"], heard["num_inference_steps"]) == (8, 3)
    sample_by_call(Stand(), ["a", "b"], [1, 2], {**plan, "negative_prompt": "bad"})
    assert heard["negative_prompt"] == ["bad", "bad"]


def test_a_call_that_fails_or_gives_no_pictures_is_one_sentence(lcm):
    pipeline = load_pipeline(lcm, torch.float32)
    plan = {"steps": 2, "guidance": 1.0, "height": 15, "width": 16, "eta": 0.0}
    with pytest.raises(CheckpointError, match="LatentConsistencyModelPipeline failed: `height"):
        sample_by_call(pipeline, ["a"], [1], {**plan, "negative_prompt": ""})

    class Silent:
        unet = pipeline.unet

        def __call__(self, prompt, generator, output_type):
            return type("Frames", (), {})()

    with pytest.raises(CheckpointError, match="gave a Frames, expected 1 pictures in colour"):
        sample_by_call(Silent(), ["a"], [1], {**plan, "negative_prompt": ""})


def test_flags_of_a_safety_checker_are_told(lcm):
    pipeline = load_pipeline(lcm, torch.float32)
    pipeline.run_safety_checker = lambda image, *_: (image, [False, True])
    plan = {"steps": 1, "guidance": 1.0, "height": 16, "width": 16, "eta": 0.0}
    _, flags = sample_by_call(pipeline, ["a", "b"], [1, 2], {**plan, "negative_prompt": ""})
    assert flags == [False, True]


TAKEN = """StableDiffusionPipeline StableDiffusionXLPipeline StableDiffusion3Pipeline FluxPipeline Flux2Pipeline
QwenImagePipeline ZImagePipeline PixArtSigmaPipeline SanaPipeline LatentConsistencyModelPipeline KandinskyV22CombinedPipeline
StableCascadeCombinedPipeline HunyuanDiTPipeline AuraFlowPipeline Lumina2Pipeline CogView4Pipeline ChromaPipeline
FluxKontextPipeline OmniGenPipeline HiDreamImagePipeline StableDiffusionXLPAGPipeline IFPipeline"""
REFUSED = {
    "StableDiffusionImg2ImgPipeline": "also needs 'image'",
    "StableDiffusionXLInpaintPipeline": "also needs 'image'",
    "StableDiffusionControlNetPipeline": "also needs 'image'",
    "FluxControlPipeline": "also needs 'control_image'",
    "FluxFillPipeline": "also needs 'image'",
    "QwenImageEditPipeline": "also needs 'image'",
    "StableDiffusionUpscalePipeline": "also needs 'image'",
    "AnimateDiffPipeline": "makes no images",
    "WanPipeline": "makes no images",
    "CogVideoXPipeline": "makes no images",
    "StableAudioPipeline": "makes no images",
    "DDPMPipeline": "makes no images from a prompt alone",
    "StableCascadePriorPipeline": "also needs 'images'",
    "KandinskyV22PriorPipeline": "makes no images from a prompt alone",
    "KandinskyV22Pipeline": "also needs 'image_embeds'",
}


def test_classes_that_make_images_from_text_are_told_from_others():
    import diffusers

    for name in TAKEN.split():
        assert _no_text_to_image(getattr(diffusers, name)) is None, name
    for name, reason in REFUSED.items():
        assert _no_text_to_image(getattr(diffusers, name)) == reason, name


def with_index(base, folder, **changes):
    shutil.copytree(base, folder)
    index = json.loads((folder / "model_index.json").read_text()) | changes
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_what_needs_more_than_text_is_refused(base, tmp_path):
    other = with_index(base, tmp_path / "a", _class_name="StableDiffusionImg2ImgPipeline")
    with pytest.raises(CheckpointError, match="which also needs 'image'; expected one that makes"):
        load_generator(other)
    for number, name in enumerate(["NoSuchPipeline", ["mine", "Mine"], None, "UNet2DModel"]):
        folder = with_index(base, tmp_path / f"b{number}", _class_name=name)
        with pytest.raises(CheckpointError, match="code of a folder's own is not run"):
            load_generator(folder)


def test_a_class_whose_packages_are_not_installed_names_them(base, tmp_path, monkeypatch):
    """diffusers puts a stand-in in the place of such a class."""
    import diffusers
    from diffusers.utils import DummyObject

    stand = DummyObject("KolorsPipeline", (), {"_backends": ["torch", "sentencepiece"]})
    monkeypatch.setattr(diffusers, "KolorsPipeline", stand, raising=False)
    folder = with_index(base, tmp_path / "kolors", _class_name="KolorsPipeline")
    with pytest.raises(CheckpointError, match="which needs the packages torch, sentencepiece"):
        load_generator(folder)


def test_code_in_a_folder_is_never_run(base, tmp_path):
    """As a component's module, as a pipeline's, or behind a class that chooses a class."""
    code = "import pathlib; pathlib.Path('ran').touch()\nclass Mine: pass\n"
    own = with_index(base, tmp_path / "a", unet=["mine", "Mine"])
    (own / "unet" / "mine.py").write_text(code)
    hidden = with_index(base, tmp_path / "b")
    (hidden / "unet" / "diffusers.py").write_text(code)
    foreign = with_index(base, tmp_path / "c", unet=["os", "PathLike"])
    for folder in (own, hidden, foreign):
        with pytest.raises(CheckpointError, match="expected one of diffusers or transformers"):
            load_generator(folder)
    mapped = with_index(base, tmp_path / "d", tokenizer=["transformers", "AutoTokenizer"])
    settings = mapped / "tokenizer" / "tokenizer_config.json"
    said = json.loads(settings.read_text()) | {"auto_map": {"AutoTokenizer": ["mine.Mine", None]}}
    settings.write_text(json.dumps(said))
    (mapped / "tokenizer" / "mine.py").write_text(code)
    with pytest.raises(CheckpointError, match="asks for code of the folder's own"):
        load_generator(mapped)
    assert not list(tmp_path.rglob("ran"))


def test_pickled_weights_are_not_read(other_base, other_kind, tmp_path):
    folder = shutil.copytree(other_base, tmp_path / "copy")
    part = "transformer" if other_kind == "sd3" else "unet"
    weights = folder / part / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(CheckpointError, match="could not be loaded as StableDiffusion"):
        load_generator(folder)


def test_the_class_and_its_options_are_part_of_the_fingerprint(tmp_path):
    folder = write_tiny_pipeline(tmp_path / "sdxl", "sdxl")
    first = folder_fingerprint(folder)
    assert folder_fingerprint(with_index(folder, tmp_path / "x", _diffusers_version="0")) == first
    changed = with_index(folder, tmp_path / "y", force_zeros_for_empty_prompt=False)
    assert folder_fingerprint(changed) != first
    plan = {"steps": 1, "guidance": 3.0, "height": 16, "width": 16, "eta": 0.0}
    made = [
        load_generator(one).sample(["a"], [1], {**plan, "negative_prompt": ""})[0]
        for one in (folder, changed)
    ]
    assert not torch.equal(*made)


def test_a_folder_in_the_hubs_cache_has_the_name_of_its_repository(tmp_path):
    folder = tmp_path / "models--fox--tiny-xl" / "snapshots" / ("a" * 40)
    folder.parent.mkdir(parents=True)
    tiny_pipeline("sdxl").save_pretrained(folder)
    assert load_generator(folder).name == "tiny-xl"

"""What benchmarks/scoring.py needs: pictures, full-size random weights, and an environment for the peers.

All is made once, with fixed seeds, in a folder that is the user's to remove.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
OFFICIAL = {"ViT-L-14": "hps-v1", "ViT-H-14": "hps-v2.1"}
IMAGES_PER_PROMPT = 4
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
# The peers take torchvision, and so the public build of torch; both environments have Palate's version of torch.
# setuptools before 81 has pkg_resources, which OpenAI's clip imports.
ENVIRONMENTS = {
    "packages": [
        "torch=={torch}",
        "torchvision",
        "transformers<5",
        "hpsv2==1.2.0",
        "imscore==0.0.11",
        "openai-clip==1.0.1",
        "setuptools<81",
    ],
    "transformers": ["torch=={torch}", "torchvision", "transformers=={transformers}", "pillow"],
}
_SUBJECTS = (
    "an old lighthouse",
    "two red foxes",
    "a market at night",
    "a glass teapot",
    "a knight",
)
_MANNERS = (
    "oil painting",
    "wide angle photograph",
    "concept art",
    "watercolour",
    "studio portrait",
)
_ENDINGS = ("soft morning light, highly detailed", "dramatic sky, sharp focus", "muted colours")


def make_environment(name: str, folder: Path) -> Path:
    """Install a peers' environment with uv unless it is there; give its Python."""
    place = folder / "peers" / name
    versions = {
        package: version(package).partition("+")[0] for package in ("torch", "transformers")
    }
    wanted = [line.format(**versions) for line in ENVIRONMENTS[name]]
    python, stamp = place / "bin" / "python", place / "installed.txt"
    if stamp.is_file() and stamp.read_text() == "\n".join(wanted):
        return python
    print(f"installing {', '.join(wanted)} in {place} (several GB)", file=sys.stderr)
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if uv is None:
        sys.exit("uv is not here, expected that of the extra 'dev': pip install 'palate[dev]'")
    # local wheels hold the CPU build of torch, beside which torchvision does not import
    clean = {key: value for key, value in os.environ.items() if key != "UV_FIND_LINKS"}
    clean["UV_COMPILE_BYTECODE"] = "1"
    venv = [uv, "venv", "-q", "--clear", "-p", sys.executable, place]
    for command in (venv, [uv, "pip", "install", "-q", "--python", python, *wanted]):
        subprocess.run(command, check=True, env=clean)
    if name == "packages":
        _give_vocabulary(python)
    stamp.write_text("\n".join(wanted))
    return python


def _give_vocabulary(python: Path) -> None:
    """Put the vocabulary file where hpsv2's wheel lacks it."""
    source = vocabulary(python)
    (source.parents[1] / "hpsv2" / "src" / "open_clip" / VOCABULARY).write_bytes(
        source.read_bytes()
    )


def vocabulary(python: Path) -> Path:
    """Find the vocabulary of CLIP that open_clip brings."""
    return next(python.parents[1].glob(f"lib/python3*/site-packages/open_clip/{VOCABULARY}"))


def make_weights(model: str, folder: Path, python: Path) -> Path:
    """Write random weights in the official format and as folders; give where they are.

    ``palate convert`` makes the folder from the official format, so that both hold the same numbers.
    """
    place = folder / "weights"
    place.mkdir(parents=True, exist_ok=True)
    if not (place / VOCABULARY).is_file():
        shutil.copy(vocabulary(python), place / VOCABULARY)
    checkpoint, ours, plain = (place / f"{model}{end}" for end in (".pt", "", "-transformers"))
    if not checkpoint.is_file():
        script = HERE / "peers" / "make_weights.py"
        subprocess.run([python, "-W", "ignore", script, model, place], check=True)
    if not ours.is_dir():
        palate = [sys.executable, "-m", "palate", "convert", checkpoint, ours]
        subprocess.run([*palate, "--scorer", OFFICIAL[model]], check=True, stdout=sys.stderr)
    if not plain.is_dir():
        _plain_folder(ours, plain)
    return place


def _plain_folder(ours: Path, plain: Path) -> None:
    """Make a folder for transformers, whose processor cannot say the preparation of HPS v2: it gets CLIP's."""
    temporary = plain.with_name(f".{plain.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer_config.json", "vocab.json"):
        os.link(ours / name, temporary / name)
    os.link(ours / "merges.txt", temporary / "merges.txt")
    (temporary / "preprocessor_config.json").write_text(
        '{"image_processor_type": "CLIPImageProcessor", "do_resize": true, "resample": 3,'
        ' "size": {"shortest_edge": 224}, "do_center_crop": true,'
        ' "crop_size": {"height": 224, "width": 224}, "do_rescale": true, "do_normalize": true,'
        ' "do_convert_rgb": true, "image_mean": [0.48145466, 0.4578275, 0.40821073],'
        ' "image_std": [0.26862954, 0.26130258, 0.27577711]}'
    )
    temporary.rename(plain)


def make_images(prompts: int, side: int, folder: Path) -> list[tuple[str, str]]:
    """Write square JPEGs of quality 90, four for each prompt; give pairs of path and prompt.

    They are noise with the spectrum of photographs (amplitude falling as 1 / frequency**1.2), in colours that go
    together: a file has about as many bytes as a photograph, which is what decoding costs.
    """
    place = folder / "images" / str(side)
    place.mkdir(parents=True, exist_ok=True)
    pairs = []
    for number in range(prompts * IMAGES_PER_PROMPT):
        path = place / f"{number:04d}.jpg"
        if not path.is_file():
            temporary = path.with_name(f".{path.name}")
            Image.fromarray(_photograph(number, side)).save(temporary, "jpeg", quality=90)
            temporary.rename(path)
        pairs.append((str(path), _prompt(number // IMAGES_PER_PROMPT)))
    return pairs


def _photograph(seed: int, side: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    vertical, horizontal = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    frequency = np.hypot(vertical, horizontal)
    frequency[0, 0] = np.inf
    falling = frequency**-1.2
    light, *colours = (
        np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) * falling, (side, side))
        for _ in range(4)
    )
    channels = np.stack([light + 0.3 * colour for colour in colours], axis=-1)
    return np.clip(128 + 50 * channels / channels.std(), 0, 255).astype(np.uint8)


def _prompt(number: int) -> str:
    """Give one of the prompts, each another, of about 15 to 20 tokens."""
    subject = _SUBJECTS[number % len(_SUBJECTS)]
    manner = _MANNERS[number // len(_SUBJECTS) % len(_MANNERS)]
    return f"{manner} of {subject}, {_ENDINGS[number % len(_ENDINGS)]}, number {number}"

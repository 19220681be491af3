"""An audit looks at sizes, marks and looks of images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image

from palate.data.audit.audit import Audit, audit_dataset
from palate.data.images import hash_image
from palate.data.records import Choice, Image
from palate.data.tables import Dataset, to_table


def look(images: list[Image], choices: list[Choice], folder: Path = Path("nowhere")) -> Audit:
    return audit_dataset(Dataset(to_table(images, "images"), to_table(choices, "choices"), folder))


def kinds(audit: Audit) -> dict[str, tuple[str, int]]:
    usual = {"unknown annotators", "missing files"}
    return {f.kind: (f.level, f.count) for f in audit.findings if f.kind not in usual}


def sized(*sizes: tuple[int, int]) -> list[Image]:
    return [Image(f"i{k}", "p", width=w, height=h) for k, (w, h) in enumerate(sizes)]


def test_sizes_are_counted_and_tiny_images_named() -> None:
    audit = look([*sized((512, 512), (512, 512), (512, 768), (40, 30)), Image("x", "p")], [])
    sizes = audit.facts.sizes
    assert sizes is not None
    assert (sizes.images, sizes.unknown, sizes.distinct, sizes.shapes) == (5, 1, 3, 3)
    assert (sizes.shortest, sizes.largest) == (30, 768)
    top = sizes.top[0]
    assert (top.width, top.height, top.images) == (512, 512, 2)
    assert kinds(audit) == {"tiny images": ("warning", 1)}


def test_a_set_of_small_images_is_no_surprise() -> None:
    assert kinds(look(sized((8, 8), (8, 8)), [])) == {}


def test_choices_between_several_sizes_are_told_with_their_shapes() -> None:
    images = sized((512, 512), (256, 256), (512, 768), (512, 512))
    choices = [
        Choice("same", "p", ("i0", "i3"), (1, 2)),
        Choice("size", "p", ("i0", "i1"), (2, 1)),
        Choice("shape", "p", ("i2", "i3"), (1, 2)),
        Choice("unknown", "p", ("i0", "elsewhere"), (2, 1)),
    ]
    audit = look(images, choices)
    told = next(f for f in audit.findings if f.kind == "several sizes in a choice")
    assert (told.level, told.count, told.examples) == ("note", 2, ("size", "shape"))
    assert told.message == "2 choices are between images of several sizes, 1 of several shapes"


def test_marks_of_unsafe_content_are_counted() -> None:
    details = [{"image_nsfw": 0.9, "prompt_nsfw": 0.1}, {"image_nsfw": 0.2}, {"nsfw": [0.1, 0.8]}]
    details += [{"blurred": True}, {"other": 1.0}, {"nsfw": "yes"}]
    images = [Image(f"i{k}", "p", details=json.dumps(row)) for k, row in enumerate(details)]
    audit = look(images, [Choice("c", "p", ("i0", "i1"), (1, 2), details='{"nsfw":0.5}')])
    told = {(row.table, row.key): (row.rows, row.above) for row in audit.facts.marks}
    assert told == {
        ("images", "image_nsfw"): (2, 1),
        ("images", "prompt_nsfw"): (1, 0),
        ("images", "nsfw"): (1, 1),
        ("images", "blurred"): (1, 1),
        ("choices", "nsfw"): (1, 0),
    }
    found = next(f for f in audit.findings if f.kind == "unsafe marks")
    assert (found.level, found.count, found.examples) == ("note", 3, ("i0", "i2", "i3"))


def paint(path: Path, seed: int, side: int = 64) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    PIL.Image.fromarray(coarse).resize((side, side), PIL.Image.Resampling.BICUBIC).save(path)


def stored(folder: Path, *names: str) -> list[Image]:
    return [Image(n, f"of {n}", path=n, sha256=hash_image(folder / n)) for n in names]


def test_images_that_look_the_same_under_other_prompts_are_near(tmp_path: Path) -> None:
    for k in range(4):
        paint(tmp_path / f"{k}.png", k)
    for side in (80, 96):
        paint(tmp_path / f"0-{side}.png", 0, side)
    (tmp_path / "copy.png").write_bytes((tmp_path / "1.png").read_bytes())
    names = ("0.png", "1.png", "2.png", "3.png", "0-80.png", "0-96.png", "copy.png")
    audit = look(stored(tmp_path, *names), [], tmp_path)
    # a copy is a copy and no near duplicate
    assert kinds(audit) == {"near duplicates": ("warning", 1), "duplicate images": ("warning", 1)}
    near = next(f for f in audit.findings if f.kind == "near duplicates")
    assert near.examples == ("0.png ≈ 0-80.png",)
    assert "3 images in all" in near.message
    shown = [p.label for s in audit.strips if s.kind == "near duplicates" for p in s.pictures]
    assert shown == ["0.png", "0-80.png", "0-96.png"]


def test_what_a_choice_already_says_is_not_said_again(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 0)
    paint(tmp_path / "b.png", 0, 80)
    choice = Choice("c", "of a.png", ("a.png", "b.png"), (1, 2))
    found = kinds(look(stored(tmp_path, "a.png", "b.png"), [choice], tmp_path))
    assert "constant groups" in found
    assert "near duplicates" not in found


def test_a_constant_group_counts_every_choice_of_it(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 0)
    paint(tmp_path / "b.png", 0)
    choices = [
        Choice(f"c{k}", "of a.png", ("a.png", "b.png")[:: 1 if k else -1], (1, 2)) for k in range(3)
    ]
    audit = look(stored(tmp_path, "a.png", "b.png"), choices, tmp_path)
    told = next(f for f in audit.findings if f.kind == "constant groups")
    assert (told.count, told.examples) == (3, ("c0", "c1", "c2"))
    assert len([s for s in audit.strips if s.kind == "constant groups"]) == 1


def test_blank_images_are_named_and_near_nothing(tmp_path: Path) -> None:
    for name, colour in (("black.png", "black"), ("white.png", "white"), ("red.png", "red")):
        PIL.Image.new("RGB", (40, 40), colour).save(tmp_path / name)
    paint(tmp_path / "a.png", 0)
    images = stored(tmp_path, "black.png", "white.png", "red.png", "a.png")
    audit = look(images, [], tmp_path)
    assert kinds(audit) == {"blank images": ("warning", 3)}

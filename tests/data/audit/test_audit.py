"""An audit names what is wrong with a data set, and is silent about a clean one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest

from palate.data.audit.audit import Audit, AuditSettings, audit_dataset, audit_folder
from palate.data.images import hash_image
from palate.data.records import Choice, Image, pick_ranks
from palate.data.tables import Dataset, save_dataset, to_table, write_table


def draw(path: Path, seed: int, change: int = 0) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    pixels[0, 0, 0] ^= change
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)


@pytest.fixture
def clean(tmp_path: Path) -> tuple[list[Image], list[Choice], Path]:
    images, choices = [], []
    for number in range(40):
        keys = tuple(f"{number}-{k}.png" for k in range(2))
        for k, key in enumerate(keys):
            draw(tmp_path / key, 2 * number + k)
            images.append(Image(key, f"p{number}", path=key, sha256=hash_image(tmp_path / key)))
        choices.append(
            Choice(
                f"c{number}",
                f"p{number}",
                keys,
                pick_ranks(2, number % 2),
                annotator=f"u{number % 4}",
            )
        )
    # every annotator sees both places
    choices = [
        dataclasses.replace(row, ranks=pick_ranks(2, k // 4 % 2)) for k, row in enumerate(choices)
    ]
    return images, choices, tmp_path


def look(made, **settings) -> Audit:
    images, choices, folder = made
    data = Dataset(to_table(images, "images"), to_table(choices, "choices"), folder)
    return audit_dataset(data, AuditSettings(**settings))


def kinds(audit: Audit) -> dict[str, tuple[str, int]]:
    return {finding.kind: (finding.level, finding.count) for finding in audit.findings}


def test_a_clean_data_set_has_no_findings(clean) -> None:
    audit = look(clean)
    assert audit.findings == ()
    assert audit.counts["images"] == 80
    assert audit.counts["images_per_choice"] == {"2": 40}
    assert audit.position is not None
    assert audit.position.chance == 0.5


def test_missing_files_are_a_note_unless_they_are_required(clean) -> None:
    images, choices, folder = clean
    (folder / "0-0.png").unlink()
    images[1] = dataclasses.replace(images[1], path=None)
    assert kinds(look((images, choices, folder))) == {"missing files": ("note", 2)}
    found = look((images, choices, folder), require_images=True)
    assert kinds(found) == {"missing files": ("error", 2)}
    assert found.findings[0].examples == ("0-0.png", "0-1.png")
    assert found.findings[0].message == "2 of 80 images have no file here"


def test_unreadable_and_changed_files_are_errors(clean) -> None:
    images, choices, folder = clean
    (folder / "0-0.png").write_text("hello")
    draw(folder / "1-0.png", 999)
    found = look((images, choices, folder))
    assert kinds(found) == {"unreadable files": ("error", 1), "changed files": ("error", 1)}
    assert "0-0.png: is no image" in found.at("error")[0].examples[0]
    assert kinds(look((images, choices, folder), decode=False)) == {"changed files": ("error", 2)}


def test_copies_and_nearly_equal_images_are_seen(clean) -> None:
    images, choices, folder = clean
    # one copy within a group, one between groups, one image that differs by one bit
    (folder / "0-1.png").write_bytes((folder / "0-0.png").read_bytes())
    (folder / "2-0.png").write_bytes((folder / "1-0.png").read_bytes())
    draw(folder / "3-1.png", 6, change=1)
    draw(folder / "3-0.png", 6)
    images = [dataclasses.replace(row, sha256=hash_image(folder / row.image)) for row in images]
    found = look((images, choices, folder))
    assert kinds(found) == {"duplicate images": ("warning", 2), "constant groups": ("warning", 2)}
    constant = next(finding for finding in found.findings if finding.kind == "constant groups")
    assert constant.examples == ("c0", "c3")


def test_two_equal_images_of_three_are_told_from_a_constant_group(clean) -> None:
    images, choices, folder = clean
    (folder / "0-1.png").write_bytes((folder / "0-0.png").read_bytes())
    images = [dataclasses.replace(row, sha256=None) for row in images]
    choices[0] = dataclasses.replace(
        choices[0], images=("0-0.png", "0-1.png", "1-0.png"), ranks=(2, 1, 2), prompt="p0"
    )
    found = kinds(look((images, choices, folder)))
    assert found["equal images in a group"] == ("warning", 1)
    assert found["other prompts"] == ("note", 1)


def test_images_without_choices_are_compared_by_prompt(clean) -> None:
    images, _, folder = clean
    (folder / "0-1.png").write_bytes((folder / "0-0.png").read_bytes())
    images = [dataclasses.replace(row, sha256=None) for row in images]
    assert kinds(look((images, [], folder)))["constant groups"] == ("warning", 1)


def test_keys_that_repeat_and_unknown_images_are_errors(clean) -> None:
    images, choices, folder = clean
    table = to_table([*images[1:], images[2]], "images")
    pa.parquet.write_table(table, folder / "images.parquet")
    write_table(to_table(choices, "choices"), folder / "choices.parquet")
    found = kinds(audit_folder(folder))
    assert found["duplicate keys"] == ("error", 1)
    assert found["unknown images"] == ("error", 1)


def test_repeats_and_contradictions_are_told_apart(clean) -> None:
    images, choices, folder = clean
    same = dataclasses.replace(choices[0], choice="again", images=choices[0].images[::-1])
    same = dataclasses.replace(same, ranks=choices[0].ranks[::-1])
    contrary = dataclasses.replace(choices[1], choice="other", ranks=choices[1].ranks[::-1])
    stranger = dataclasses.replace(choices[2], choice="stranger", annotator="someone")
    found = look((images, [*choices, same, contrary, stranger], folder))
    assert kinds(found) == {"duplicate choices": ("warning", 1), "contradictions": ("warning", 1)}
    assert found.findings[0].examples == ("c0 and again",)


def test_odd_annotators_are_named(clean) -> None:
    images, choices, folder = clean
    stuck = [
        dataclasses.replace(row, choice=f"s{k}", annotator="lazy", ranks=(1, 2))
        for k, row in enumerate(choices)
    ]
    tied = [
        dataclasses.replace(row, choice=f"t{k}", annotator="torn", ranks=(1, 1))
        for k, row in enumerate(choices)
    ]
    found = look((images, [*choices, *stuck, *tied], folder))
    told = {finding.kind: finding for finding in found.findings}
    assert told["one-position annotators"].examples == ("lazy: the first image in 40 of 40",)
    assert told["undecided annotators"].examples == ("torn: 40 choices",)
    assert told["all tied"].count == 40
    assert told["position bias"].level == "warning"


def test_one_busy_person_among_many_is_named(clean) -> None:
    images, choices, folder = clean
    mixed = [dataclasses.replace(row, annotator=f"u{k}") for k, row in enumerate(choices)]
    assert kinds(look((images, mixed, folder))) == {"one choice each": ("note", 40)}
    for k in range(20):
        mixed[k] = dataclasses.replace(mixed[k], annotator="busy")
    found = look((images, mixed, folder))
    assert found.findings[0].kind == "dominating annotators"
    assert found.findings[0].examples == ("busy: 20 of 40",)


def test_unknown_annotators_and_empty_prompts_are_counted(clean) -> None:
    images, choices, folder = clean
    choices = [dataclasses.replace(row, annotator=None) for row in choices]
    images[0] = dataclasses.replace(images[0], prompt=" ")
    found = kinds(look((images, choices, folder)))
    assert found["unknown annotators"] == ("note", 40)
    assert found["empty prompts"] == ("warning", 1)


def test_an_audit_is_data(clean) -> None:
    images, choices, folder = clean
    (folder / "0-0.png").unlink()
    save_dataset(folder, to_table(images, "images"), to_table(choices, "choices"))
    audit = audit_folder(folder)
    assert json.loads(json.dumps(audit.to_dict()))["findings"][0]["kind"] == "missing files"
    assert audit.to_table().to_pylist()[0]["examples"] == ["0-0.png"]
    assert look((images, [], folder)).position is None

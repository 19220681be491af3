"""The synthetic channels: the exporter's shape, the same for a seed, and a truth that is not trivial."""

from __future__ import annotations

import io
import json
import random
import re
from collections import defaultdict
from typing import Any

import numpy as np
import palate_channels as made
import PIL.Image
import pytest
from palate_channels.exporter import escape, local_name, snowflake, stamp, time_of
from palate_channels.pictures import LAYOUTS, collage, decode, encode, field

MAKERS = {
    "dreambot": made.dreambot,
    "midjourney 2023": made.midjourney,
    "midjourney 2022": lambda seed, grids, **how: made.midjourney(seed, grids, "2022", **how),
    "ownbot": made.ownbot,
}
TRAPS = {name: getattr(made, name) for name in made.__all__ if name.startswith("trap_")}
SMALL = 70


@pytest.fixture(scope="module", params=MAKERS)
def channel(request):
    return MAKERS[request.param](3, SMALL)


@pytest.fixture(scope="module")
def real(shared):
    [path] = (shared / "data" / "discord").glob("*.json")
    return path


def entries(channel) -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in channel.export["messages"]}


# ------------------------------------------------------------------ shape


def shape_faults(entry: dict[str, Any], example: dict[str, Any]) -> list[str]:
    """Fields that the real message does not have, misses, or has in another order."""
    optional = ("reference", "forwardedMessage", "interaction")
    plain = [key for key in entry if key not in optional]
    expected = [key for key in example if key not in optional]
    return [] if plain == expected else [f"{plain} in place of {expected}"]


def test_a_message_has_the_fields_of_a_real_one_in_their_order(channel, real):
    document = json.loads(real.read_text(encoding="utf-8"))
    assert list(channel.export) == list(document)
    for key in ("guild", "channel", "dateRange"):
        assert list(channel.export[key]) == list(document[key])
    example = document["messages"][0]
    reference = document["messages"][-1]["reference"]
    card = next(e["embeds"][0] for e in document["messages"] if e["embeds"])
    optional = {"author", "thumbnail", "image", "video", "footer"}
    for entry in channel.export["messages"]:
        assert shape_faults(entry, example) == []
        people = [entry["author"], *entry["mentions"]]
        assert all(list(person) == list(example["author"]) for person in people)
        assert list(entry.get("reference", reference)) == list(reference)
        for found in entry["embeds"]:
            assert [key for key in found if key not in optional] == list(card)


def test_a_real_export_is_written_back_byte_for_byte(real, tmp_path):
    text = real.read_text(encoding="utf-8")
    export = json.loads(text)
    whole = made.Channel(export, [], {}, {})
    [path] = made.write(whole, tmp_path)
    assert path.read_bytes() == real.read_bytes()
    assert path.name == "Discord Ferry Test - general [1506019498094891120].json"


def test_what_is_written_is_read_back(channel, tmp_path):
    [path] = made.write(channel, tmp_path)
    assert json.loads(path.read_text(encoding="utf-8")) == channel.export
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n  ],\n" + f'  "messageCount": {len(channel.export["messages"])}\n}}')
    assert escape("🦊") == "\\uD83E\\uDD8A"
    assert re.search("[\U00010000-\U0010ffff]", text) is None


def test_parts_are_complete_documents(channel, tmp_path):
    paths = made.write(channel, tmp_path, split=3, media=False)
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    assert [path.name.endswith(f" [part {n}].json") for n, path in enumerate(paths, 1)] == [
        False, True, True,
    ]  # fmt: skip
    assert all(found["messageCount"] == len(found["messages"]) for found in documents)
    together = [entry["id"] for found in documents for entry in found["messages"]]
    assert together == [entry["id"] for entry in channel.export["messages"]]
    assert "_Files" not in paths[0].read_text(encoding="utf-8")
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_windows_writes_its_separators_and_line_ends(tmp_path):
    channel = made.midjourney(1, 2)
    [path] = made.write(channel, tmp_path, windows_paths=True)
    data = path.read_bytes()
    assert b"\r\n" in data
    assert rb".json_Files\\" in data
    url = json.loads(data)["guild"]["iconUrl"]
    assert (tmp_path / url.replace("\\", "/")).is_file()


@pytest.mark.parametrize("name", MAKERS)
def test_a_seed_gives_the_same_channel(name):
    first, second, other = (MAKERS[name](seed, 12) for seed in (5, 5, 6))
    assert (first.export, first.truths, first.files) == (second.export, second.truths, second.files)
    assert first.export != other.export


def test_a_time_is_written_as_the_exporter_writes_it():
    ms = 1_779_133_429_913
    assert stamp(ms, 180) == "2026-05-18T22:43:49.913+03:00"
    assert stamp(ms - 3) == "2026-05-18T19:43:49.91+00:00"
    assert stamp(ms - 913) == "2026-05-18T19:43:49+00:00"
    assert time_of("1506019502616477787") == ms
    assert time_of(snowflake(ms, 2**22 + 7)) == ms


# ------------------------------------------------------------------ content


def test_every_truth_names_messages_of_the_export(channel):
    found = entries(channel)
    assert len(found) == len(channel.export["messages"])
    assert list(found) == sorted(found, key=int)
    for truth in channel.truths:
        grid = found[truth.grid_message]
        assert grid["author"]["isBot"]
        assert len(grid["attachments"]) in (1, truth.extra["shown"])
        assert truth.extra["prompt"] in grid["content"]
        assert set(truth.extra["messages"]) <= set(found)
        if truth.picked is None:
            assert (truth.rule, truth.pick_message) == ("none", "")
        else:
            assert 0 <= truth.picked < truth.extra["shown"]
            assert truth.rule in {"named", "seed", "attach", "react", "pixels"}
            assert truth.pick_message == truth.extra["messages"][0]
            assert int(truth.pick_message) >= int(truth.grid_message)


def test_one_person_says_one_thing_of_one_grid(channel):
    said = defaultdict(list)
    for truth in channel.truths:
        said[truth.grid_message, truth.person].append(truth)
    for truths in said.values():
        assert len(truths) == truths[0].extra.get("several", 1)
        assert len({truth.picked for truth in truths}) == len(truths)
    requesters = {(t.grid_message, t.extra["requester"]) for t in channel.truths}
    assert requesters <= set(said)


def test_every_file_is_as_large_as_the_export_says_and_decodes(channel):
    for entry in channel.export["messages"]:
        for attachment in entry["attachments"]:
            data = channel.files[attachment["url"]]
            assert len(data) == attachment["fileSizeBytes"]
            decode(data)
    assert all(PIL.Image.open(io.BytesIO(data)).size > (0, 0) for data in channel.files.values())


def test_collages_are_row_major():
    rng = random.Random(0)
    for count, (rows, columns) in LAYOUTS.items():
        images = [field(rng, 20, 10) for _ in range(count)]
        whole = np.asarray(collage(images))
        assert whole.shape == (10 * rows, 20 * columns, 3)
        for position, image in enumerate(images):
            row, column = divmod(position, columns)
            cell = whole[10 * row : 10 * row + 10, 20 * column : 20 * column + 20]
            assert (cell == np.asarray(image)).all()
    assert decode(encode(collage(images))).size == (60, 30)


def test_pixels_tell_which_image_was_enlarged():
    channel = made.midjourney(4, SMALL, "2022")
    found = entries(channel)
    right = wrong = 0
    for truth in channel.truths:
        if truth.picked is None or "beyond" in truth.extra:
            continue
        whole = decode(channel.files[found[truth.grid_message]["attachments"][0]["url"]])
        one = decode(channel.files[found[truth.pick_message]["attachments"][0]["url"]])
        guess = nearest(whole, one)
        right, wrong = right + (guess == truth.picked), wrong + (guess != truth.picked)
    assert right > 40
    assert wrong <= 0.05 * right


def nearest(whole: PIL.Image.Image, one: PIL.Image.Image) -> int:
    """The quadrant of a grid that looks most like an image."""
    width, height = whole.width // 2, whole.height // 2
    small = np.asarray(one.resize((16, 16)), dtype=float)
    distances = []
    for position in range(4):
        x, y = position % 2 * width, position // 2 * height
        cell = np.asarray(whole.crop((x, y, x + width, y + height)).resize((16, 16)), dtype=float)
        distances.append(((cell - small) ** 2).mean())
    return int(np.argmin(distances))


# ------------------------------------------------------------------ the hard part


def test_what_misleads_a_naive_rule_is_in_every_channel(channel):
    hard = [truth for truth in channel.truths if "hard" in truth.extra]
    assert len(hard) >= 0.05 * len(channel.truths)
    easy = made.dreambot(1, 40, hard=0.0)
    assert not [truth for truth in easy.truths if "hard" in truth.extra]


def naive_seeds(channel) -> dict[str, int]:
    """Whoever sends a seed of a grid picks from the last grid that has it: no person, no prompt."""
    owner: dict[int, tuple[str, int]] = {}
    picks: dict[str, int] = {}
    for entry in channel.export["messages"]:
        text = entry["content"]
        listed = re.search(r"individual image are \[([\d, ]+)\]", text)
        each = re.findall(r"-S (\d+)", text.split("individual image are")[-1])
        if listed or "The commands for each" in text:
            seeds = listed[1].split(", ") if listed else each
            owner |= {int(seed): (entry["id"], k) for k, seed in enumerate(seeds)}
        elif text.startswith("!dream"):
            for seed in re.findall(r"-S (\d+)", text)[:1]:
                if int(seed) in owner:
                    grid, k = owner[int(seed)]
                    picks[grid] = k
    return picks


def naive_names(channel) -> dict[str, int]:
    """`Image #j` picks from the last grid with the same words between the stars."""
    last: dict[str, str] = {}
    picks: dict[str, int] = {}
    for entry in channel.export["messages"]:
        match = re.match(r"\*\*(.*?)\*\* - (?:Image #(\d))?", entry["content"])
        if match and match[2]:
            picks[last.get(match[1], "")] = int(match[2]) - 1
        elif match:
            last[match[1]] = entry["id"]
    return picks


@pytest.mark.parametrize(
    ("name", "rule", "reader"),
    [("dreambot", "seed", naive_seeds), ("midjourney 2023", "named", naive_names)],
)
def test_a_naive_reader_is_mostly_right_and_often_wrong(name, rule, reader):
    channel = MAKERS[name](7, 200)
    said = reader(channel)
    wanted: dict[str, set[int | None]] = defaultdict(set)
    for truth in channel.truths:
        if not truth.extra.get("other") and truth.rule in {rule, "none"}:
            wanted[truth.grid_message].add(truth.picked)
    right = [said.get(grid) in picked for grid, picked in wanted.items()]
    assert 0.6 < np.mean(right) < 0.95


def test_two_people_share_a_nickname_and_some_change_theirs():
    channel = made.dreambot(2, 120, rendered=True)
    names: dict[str, set[str]] = defaultdict(set)
    for entry in channel.export["messages"]:
        names[entry["author"]["id"]].add(entry["author"]["nickname"])
        assert not [p for p in entry["mentions"] if f"<@{p['id']}>" in entry["content"]]
    shared = [name for person in names.values() for name in person]
    assert len(set(shared)) < len(shared)
    assert any(len(person) > 1 for person in names.values())


def test_a_later_export_has_the_same_messages_under_new_nicknames():
    channel = made.midjourney(2, 5)
    later = made.again(channel)
    assert set(entries(later)) == set(entries(channel))
    assert "(renamed)" in json.dumps(later.export)
    assert "(renamed)" not in json.dumps(channel.export)


# ------------------------------------------------------------------ traps


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_the_same_every_time_and_can_be_written(name, tmp_path):
    first, second = TRAPS[name](), TRAPS[name]()
    assert (first.export, first.truths, first.files) == (second.export, second.truths, second.files)
    for path in made.write(first, tmp_path):
        if path.name != first.notes.get("truncated"):
            json.loads(path.read_text(encoding="utf-8"))
    assert {truth.grid_message for truth in first.truths} <= set(entries(first))


def test_the_trap_of_media_paths_has_one_grid_of_each_case(tmp_path):
    channel = made.trap_media_paths()
    made.write(channel, tmp_path / "export")
    urls = {
        case: (entries(channel)[number]["attachments"][0], number)
        for number, case in channel.notes["cases"].items()
    }
    fine, _ = urls["fine"]
    assert len(channel.files[fine["url"]]) == fine["fileSizeBytes"]
    assert "\\" in urls["windows separators"][0]["url"]
    assert urls["remote"][0]["url"].startswith("https://")
    page = urls["error page of the right size"][0]
    assert len(channel.files[page["url"]]) == page["fileSizeBytes"]
    assert channel.files[page["url"]].startswith(b"<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_the_trap_of_colliding_names_has_two_sizes_for_one_file():
    channel = made.trap_name_collision()
    first, second = (entries(channel)[n]["attachments"][0] for n in channel.notes["collided"])
    assert first["url"] == second["url"]
    assert first["id"] != second["id"]
    assert first["fileSizeBytes"] != second["fileSizeBytes"]
    assert len(local_name("https://x/y/grid_0.png", "grid_0.png", 5)) == len("grid_0-0ab1c.png")


def test_the_trap_of_parts_overlaps_and_one_file_breaks_off(tmp_path):
    channel = made.trap_local_time_and_parts()
    paths = made.write(channel, tmp_path, media=False)
    assert len(paths) == 4
    *whole, cut = [path.read_text(encoding="utf-8") for path in paths]
    assert '"messageCount"' not in cut
    with pytest.raises(json.JSONDecodeError):
        json.loads(cut)
    ids = [{entry["id"] for entry in json.loads(text)["messages"]} for text in whole]
    assert not ids[0] & ids[1]
    assert ids[0] | ids[1] == set(entries(channel)) > ids[2]
    assert "+02:00" in whole[0]
    assert "+01:00" in whole[1]


def test_the_trap_of_buttons_tells_the_newer_writer():
    older, newer = made.trap_no_components(), made.trap_no_components(newer=True)
    assert "components" not in older.export["messages"][0]
    labels = [b["label"] for b in newer.export["messages"][0]["components"][0]["components"]]
    assert labels == ["U1", "U2", "U3", "U4"]


# ------------------------------------------------------------------ size and page


def test_the_example_on_the_page_runs(root, tmp_path):
    page = (root / "docs" / "sources" / "discord-synthetic.md").read_text(encoding="utf-8")
    names = {"folder": tmp_path}
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code, names)
    assert [path.is_file() for path in names["paths"]] == [True, True]
    assert all(f"`{name}`" in page for name in TRAPS)


def test_a_huge_export_is_valid_and_no_message_comes_twice(tmp_path):
    path = tmp_path / "huge.json"
    count = made.huge(path, 5, 1)
    export = json.loads(path.read_text(encoding="utf-8"))
    assert count == len(export["messages"]) == export["messageCount"]
    assert len({entry["id"] for entry in export["messages"]}) == count
    assert 5_000_000 <= path.stat().st_size < 5_100_000
    assert "⟦" not in path.read_text(encoding="utf-8")

"""The nine traps of an export, and what an import of a channel promises about people."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from palate_channels import dreambot, midjourney, ownbot, traps, write

from palate.cli.main import main
from palate.data.importing import collect, write_import
from palate.data.records import Choice, Image
from palate.data.sources.common import Imported
from palate.data.sources.discord import DiscordSettings, discord
from palate.data.sources.discord.dialects import DIALECTS, load_dialect, read_command
from palate.data.sources.discord.exports import Export, read_message
from palate.data.tables import load_dataset, to_rows
from palate.errors import DataError
from palate.runs import hash_file

SETTINGS = DiscordSettings(legal_basis="synthetic people agreed", dialect="midjourney")


def read(path: Path, key: Path, settings: DiscordSettings = SETTINGS, **given: Any) -> Imported:
    deletions = given.pop("deletions", None)
    return collect(discord(path, key, replace(settings, **given), deletions))


def export(channel: Any, folder: Path, **how: Any) -> Path:
    """The file of the export, or its folder if there are several."""
    paths = write(channel, folder, **how)
    return paths[0] if len(paths) == 1 else folder


def right(channel: Any, imported: Imported) -> tuple[int, int]:
    """How many true picks came in, and how many choices there are."""
    places = sorted(truth.picked for truth in channel.truths if truth.picked is not None)
    found = [
        json.loads(row.details or "")["picked"][0] for row in to_rows(imported.choices, Choice)
    ]
    return sum(place in found for place in places), len(found)


# ---------------------------------------------------------------------------------------------- traps


def test_people_are_taken_from_mentions_and_not_from_nicknames(tmp_path: Path) -> None:
    channel = traps.trap_rendered_mentions()
    found = read(export(channel, tmp_path / "e"), tmp_path / "key")
    wrong = set(found.report["grids"]) - {"with_choice", "no_pick", "unknown_person"}
    assert not wrong
    picked = {t.grid_message: t for t in channel.truths if t.picked is not None}
    assert 0 < len(found.choices) <= len(picked)
    assert found.report["grids"]["with_choice"] >= 4


def test_kinds_of_message_may_be_numbers(tmp_path: Path) -> None:
    channel = traps.trap_numeric_type()
    found = read(export(channel, tmp_path / "e"), tmp_path / "key")
    assert right(channel, found) == (4, 4)
    assert found.report["messages"]["system"] > 0


@pytest.mark.parametrize("newer", [False, True])
def test_buttons_are_not_needed(tmp_path: Path, newer: bool) -> None:
    channel = traps.trap_no_components(newer=newer)
    found = read(export(channel, tmp_path / "e"), tmp_path / "key")
    assert len(found.choices) == sum(truth.picked is not None for truth in channel.truths)


def test_files_that_are_not_what_the_export_says_are_left_alone(tmp_path: Path) -> None:
    channel = traps.trap_media_paths()
    path = export(channel, tmp_path / "e")
    with pytest.raises(DataError, match="does not stay inside the folder of the export"):
        read(path, tmp_path / "key")
    found = read(path, tmp_path / "key", allow_errors=True)
    assert len(found.choices) == len(channel.notes["cases"])
    by_case = {}
    keys = {row.images[0]: row for row in to_rows(found.choices, Choice)}
    images = {row.image: row for row in to_rows(found.images, Image)}
    for first in keys:
        by_case.setdefault(images[first].sha256 is not None, []).append(first)
    assert len(by_case[True]) == 2  # fine, and with the separators of Windows
    assert found.report["faults"]["count"] == 4
    assert found.report["quarantined_file_is_no_picture"] == 1
    assert found.report["quarantined_file_of_another_size"] == 2
    assert found.report["pictures_not_saved"] == 1


def test_a_file_that_two_attachments_claim_is_nobodys(tmp_path: Path) -> None:
    channel = traps.trap_name_collision()
    found = read(export(channel, tmp_path / "e"), tmp_path / "key")
    assert len(found.choices) == 3
    assert found.report["quarantined_file_of_two_attachments"] == 2
    assert sum(row.sha256 is not None for row in to_rows(found.images, Image)) == 4


def test_links_are_refused_unless_the_choices_alone_are_wanted(tmp_path: Path) -> None:
    channel = midjourney(1, grids=30)
    path = export(channel, tmp_path / "e", media=False)
    with pytest.raises(DataError, match=r"links, which expire.*--media.*--without-media"):
        read(path, tmp_path / "key")
    found = read(path, tmp_path / "key", media=False)
    assert len(found.choices) > 10
    assert all(row.path is None for row in to_rows(found.images, Image))
    assert found.report["missing_images"] == len(found.images)


def test_parts_in_several_zones_are_one_channel(tmp_path: Path) -> None:
    channel = traps.trap_local_time_and_parts()
    folder = export(channel, tmp_path / "e")
    broken = channel.notes["truncated"]
    with pytest.raises(DataError, match=r"breaks off|did not finish"):
        read(folder, tmp_path / "key")
    kept = read(folder, tmp_path / "key", truncated="keep")
    (folder / broken).unlink()
    found = read(folder, tmp_path / "key")
    assert kept.choices.equals(found.choices)
    assert kept.report["unfinished_exports"] == 1
    assert found.report["messages"]["repeated"] > 0
    assert right(channel, found) == (9, 9)


def test_a_bot_that_may_not_read_texts_is_noticed(tmp_path: Path) -> None:
    path = export(traps.trap_empty_content(), tmp_path / "e")
    with pytest.raises(DataError, match="message content intent"):
        read(path, tmp_path / "key")


def test_the_bots_own_reactions_are_no_picks(tmp_path: Path) -> None:
    channel = traps.trap_bot_reactions()
    found = read(export(channel, tmp_path / "e"), tmp_path / "key", dialect="reactions")
    mine = [t for t in channel.truths if t.picked is not None and not t.extra.get("other")]
    alone = {
        t.grid_message for t in mine if sum(o.grid_message == t.grid_message for o in mine) == 1
    }
    assert len(found.choices) == len(alone)


# -------------------------------------------------------------------------------------------- promises


def test_a_real_export_is_read_without_loss(shared: Path) -> None:
    [path] = (shared / "data" / "discord").glob("*.json")
    whole = json.loads(path.read_text())
    found = Export(path)
    messages = list(found)
    assert messages == whole["messages"]
    head = {key: value for key, value in found.head.items() if key != "messages"}
    assert head == {key: value for key, value in whole.items() if key != "messages"}
    assert found.broken is None
    told = [read_message(raw) for raw in messages]
    assert [str(message.id) for message in told] == [raw["id"] for raw in messages]
    assert [message.text for message in told] == [raw["content"] for raw in messages]


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json" and not path.name.startswith(".")
    }


def test_parts_that_overlap_give_the_same_bytes(tmp_path: Path) -> None:
    channel = dreambot(5, grids=60)
    settings = replace(SETTINGS, dialect="dreambot")
    folder, key = tmp_path / "export", tmp_path / "key"
    [one] = write(channel, folder)
    write_import(discord(one, key, settings), tmp_path / "out-one")
    write(channel, folder, split=3)  # the first part takes the place of the whole
    write_import(discord(folder, key, settings), tmp_path / "out-several")
    one.with_name("whole.json").write_text(json.dumps(channel.export))
    write_import(discord(folder, key, settings), tmp_path / "out-again")
    found = files(tmp_path / "out-one")
    assert any(name.startswith("images/") for name in found)
    assert found == files(tmp_path / "out-several") == files(tmp_path / "out-again")


@pytest.mark.parametrize(
    ("make", "dialect"), [(dreambot, "dreambot"), (midjourney, "midjourney"), (ownbot, "reactions")]
)
def test_no_user_id_and_no_name_is_left(tmp_path: Path, make: Any, dialect: str) -> None:
    channel = make(2, grids=60)
    path = export(channel, tmp_path / "e")
    settings = replace(SETTINGS, dialect=dialect)
    write_import(discord(path, tmp_path / "key", settings), tmp_path / "out")
    people = {m["author"]["id"] for m in channel.export["messages"]}
    people |= {who["id"] for m in channel.export["messages"] for who in m["mentions"]}
    text = "".join(
        json.dumps(pq.read_table(tmp_path / "out" / name).to_pylist(), ensure_ascii=False)
        for name in ("images.parquet", "choices.parquet")
    )
    assert not [person for person in people if person in text]
    messages = {m["id"] for m in channel.export["messages"]}
    assert not [message for message in messages if message in text]
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    files_of_people = [a["fileName"] for m in channel.export["messages"] for a in m["attachments"]]
    everything = text + json.dumps(record) + " ".join(files(tmp_path / "out"))
    assert not [name for name in files_of_people if name in everything]
    assert channel.export["channel"]["id"] not in everything
    assert channel.export["guild"]["name"] not in everything
    assert record["settings"]["legal_basis"] == "synthetic people agreed"
    load_dataset(tmp_path / "out")


def test_another_key_gives_other_names_and_the_same_picks(tmp_path: Path) -> None:
    path = export(midjourney(4, grids=40), tmp_path / "e")
    one, other = read(path, tmp_path / "one"), read(path, tmp_path / "other")
    ranks = [found.choices.column("ranks").to_pylist() for found in (one, other)]
    assert ranks[0] == ranks[1]
    people = [set(found.choices.column("annotator").to_pylist()) for found in (one, other)]
    assert len(people[0]) == len(people[1])
    assert not people[0] & people[1]
    assert (tmp_path / "one").stat().st_mode & 0o077 == 0


def test_deleted_people_leave_nothing(tmp_path: Path) -> None:
    channel = midjourney(4, grids=60)
    path = export(channel, tmp_path / "e")
    whole = read(path, tmp_path / "key")
    person = next(t.person for t in channel.truths if t.picked is not None)
    listed = tmp_path / "deleted.txt"
    listed.write_text(f"# asked on 2026-02-01\n{person}  # form 7\n")
    less = read(path, tmp_path / "key", deletions=listed)
    gone = set(whole.choices.column("annotator").to_pylist()) - set(
        less.choices.column("annotator").to_pylist()
    )
    assert len(gone) == 1
    assert (
        less.report["messages"]["by_deleted_people"] > 0
        or less.report["grids"]["of_deleted_people"]
    )
    assert sum(less.report["messages"].values()) == len(channel.export["messages"])
    listed.write_text("somebody\n")
    with pytest.raises(DataError, match="line 1: 'somebody' is no Discord user id"):
        read(path, tmp_path / "key", deletions=listed)


def test_nothing_is_imported_without_a_legal_basis() -> None:
    with pytest.raises(DataError, match="only with a legal basis"):
        DiscordSettings(dialect="midjourney")


def test_several_picks_follow_the_policy(tmp_path: Path) -> None:
    path = export(midjourney(3, grids=200), tmp_path / "e")
    found = {
        rule: read(path, tmp_path / "key", several=rule)
        for rule in ("drop", "first", "last", "multi")
    }
    sizes = {rule: len(one.choices) for rule, one in found.items()}
    ambiguous = found["drop"].report["grids"]["several_picks"]
    assert sizes["first"] == sizes["last"] == sizes["drop"] + ambiguous
    assert found["first"].choices.column("ranks") != found["last"].choices.column("ranks")
    ties = [row for row in to_rows(found["multi"].choices, Choice) if row.ranks.count(1) > 1]
    assert 0 < len(ties) <= ambiguous


def test_picks_of_others_are_choices_of_their_own_if_wanted(tmp_path: Path) -> None:
    path = export(ownbot(3, grids=100), tmp_path / "e")
    own = read(path, tmp_path / "key", dialect="reactions")
    anyone = read(path, tmp_path / "key", dialect="reactions", who="anyone")
    assert len(anyone.choices) > len(own.choices)
    rows = [json.loads(row.details or "") for row in to_rows(anyone.choices, Choice)]
    assert {row["own_grid"] for row in rows} == {True, False}


def test_the_list_of_deleted_people_cannot_be_tried_out(tmp_path: Path) -> None:
    channel = midjourney(4, grids=20)
    path = export(channel, tmp_path / "e")
    listed = tmp_path / "deleted.txt"
    listed.write_text("123456789012345678\n")
    source = discord(path, tmp_path / "key", SETTINGS, listed)
    write_import(source, tmp_path / "out")
    text = (tmp_path / "out" / "run.json").read_text()
    assert hash_file(listed) not in text
    listed.write_text("１２３\n")
    with pytest.raises(DataError, match="is no Discord user id"):
        discord(path, tmp_path / "key", SETTINGS, listed)


def test_a_person_with_the_name_of_the_bot_is_a_person(tmp_path: Path) -> None:
    channel = midjourney(1, grids=20)
    for message in channel.export["messages"]:
        message["author"]["isBot"] = False
    with pytest.raises(DataError, match=r"no record that can be used .*chat"):
        read(export(channel, tmp_path / "e"), tmp_path / "key")


def test_of_overlapping_exports_the_latest_has_the_first_word(tmp_path: Path) -> None:
    channel = ownbot(3, grids=20)
    later = json.dumps(channel.export | {"exportedAt": "2031-01-01T00:00:00+00:00"})
    for message in channel.export["messages"]:
        message["reactions"] = []
    found = []
    for old, new in (("a", "b"), ("b", "a")):
        folder = tmp_path / old
        [path] = write(channel, folder)
        path.rename(folder / f"{old}.json")
        (folder / f"{new}.json").write_text(later)
        found.append(read(folder, tmp_path / "key", dialect="reactions"))
    assert found[0].choices.equals(found[1].choices)
    assert len(found[0].choices) > 5


@pytest.mark.parametrize(
    "change",
    [
        {"content": None},
        {"content": "half \ud83e"},
        {"timestamp": "0001-01-01T00:00:00+14:00"},
        {"attachments": [{"id": "5", "url": None, "fileName": "a.png", "fileSizeBytes": 3}]},
        {
            "attachments": [
                {"id": "5", "url": "a", "fileName": "a.png", "fileSizeBytes": 1e300 * 1e9}
            ]
        },
        {"author": "ann"},
    ],
)
def test_a_message_that_cannot_be_read_is_a_fault_and_not_the_end(
    tmp_path: Path, change: Any
) -> None:
    channel = midjourney(1, grids=20)
    place = next(k for k, m in enumerate(channel.export["messages"]) if not m["attachments"])
    channel.export["messages"][place] |= change
    [path] = write(midjourney(1, grids=20), tmp_path / "e")
    path.write_text(json.dumps(channel.export).replace("Infinity", "1e999"))
    with pytest.raises(DataError, match=f"export 1, message {place}: is not as the exporter"):
        read(path, tmp_path / "key")
    found = read(path, tmp_path / "key", allow_errors=True)
    assert found.report["messages"]["unreadable"] == 1
    assert sum(found.report["messages"].values()) == len(channel.export["messages"])


def test_a_message_out_of_order_is_refused(tmp_path: Path) -> None:
    channel = midjourney(1, grids=5)
    channel.export["messages"].reverse()
    with pytest.raises(DataError, match="export in the order of time"):
        read(export(channel, tmp_path / "e"), tmp_path / "key")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "no export of DiscordChatExporter"),
        ("{}", "empty object"),
        ('{"guild": {}}', "no 'messages'"),
        ('{"messages": [{"id": "5"}], "messageCount": 1}', "message 0: is not as the exporter"),
        ('{"messages": []', "breaks off"),
    ],
)
def test_a_file_that_is_no_export_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=told):
        read(path, tmp_path / "key")


def test_two_channels_are_refused(tmp_path: Path) -> None:
    write(midjourney(1, grids=5), tmp_path / "e")
    write(ownbot(1, grids=5), tmp_path / "e")
    with pytest.raises(DataError, match="import each by itself"):
        read(tmp_path / "e", tmp_path / "key")


# -------------------------------------------------------------------------------------------- dialects


@pytest.mark.parametrize(
    ("text", "prompt", "seed", "images"),
    [
        ('!dream "a red fox" -S 7 -n 4', "a red fox", 7, 4),
        ("!dream a red fox -S7", "a red fox", None, 1),
        ('!dream "say \\"hi\\", fox" -s 50', 'say \\"hi\\", fox', None, 1),
        ("!dream “smart quotes” -S 12", "smart quotes", 12, 1),
        ('!dream "f/1.4 - S 5 inside" -n 2', "f/1.4 - S 5 inside", None, 2),
    ],
)
def test_commands(text: str, prompt: str, seed: int | None, images: int) -> None:
    found = read_command(text)
    assert found is not None
    assert (found.prompt, found.images) == (prompt, images)
    if seed is not None:
        assert found.seed == seed


def test_a_dialect_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "paint.toml"
    path.write_text(
        'bots = ["Midjourney Bot"]\n'
        r"""grid = ['\*\*(?P<prompt>.*)\*\* - (?!Image)(?P<person><@\d+>) \((?P<status>.*)\)']"""
        "\n"
        r"""pick = ['\*\*(?P<prompt>.*)\*\* - Image #(?P<index>\d) (?P<person><@\d+>)']"""
        "\n"
    )
    channel = midjourney(1, grids=20)
    export_path = export(channel, tmp_path / "e")
    found = read(export_path, tmp_path / "key", dialect=str(path))
    assert len(found.choices) > 5
    assert load_dialect("dreambot") is DIALECTS["dreambot"]
    for text, told in (
        ('bots = ["a"]\n', "has no 'grid'"),
        ('bots = ["a"]\ngrid = ["(?P<prompt>"]\n', "is no pattern"),
        ('bots = ["a"]\ngrid = ["x"]\n', "no group 'prompt'"),
        ('bots = "a"\ngrid = ["x"]\n', "expected a list of texts"),
        ("colour = 1\n", "unknown key 'colour'"),
        ("bots = [\n", "no valid TOML"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=told):
            load_dialect(str(path))
    with pytest.raises(DataError, match="no dialect is called 'paint'"):
        load_dialect("paint")


def test_the_command_tells_the_funnel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = export(midjourney(1, grids=20), tmp_path / "e")
    command = ["data", "import", "discord", str(path), "--dialect", "midjourney"]
    command += ["--key", str(tmp_path / "key"), "--out", str(tmp_path / "out")]
    assert main([*command, "--legal-basis", " "]) == 2
    assert "only with a legal basis" in capsys.readouterr().err
    assert main([*command, "--legal-basis", "they agreed"]) == 0
    told = capsys.readouterr().out
    assert "with choice" in told
    assert "named" in told

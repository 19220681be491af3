"""`palate data`: what it prints, its exit status, and that bad input leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from palate.cli.main import main
from palate.data.records import Choice, Image, Score
from palate.data.tables import load_dataset, to_rows, to_table, write_table


@pytest.fixture
def hpd(tmp_path: Path) -> Path:
    records = [
        {
            "human_preference": 3 if number % 2 else number % 4,
            "prompt": f"prompt {number}",
            "id": number,
            "file_path": [f"preference_images/{number}_{k}.jpg" for k in range(4)],
            "user_hash": f"{number:064x}",
            "contain_name": False,
        }
        for number in range(60)
    ]
    path = tmp_path / "preference_test.json"
    path.write_text(json.dumps(records))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "images"
    place.mkdir()
    rng = np.random.default_rng(0)
    for name in "abcd":
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(place / f"{name}.png")
    (place / "prompts.csv").write_text("image,prompt\na.png,p\nb.png,p\nc.png,q\nd.png,q\n")
    lines = ['{"images": ["a.png", "b.png"], "best": "a.png", "annotator": "u"}']
    lines.append('{"images": ["c.png", "d.png"], "best": "d.png", "annotator": "v"}')
    (tmp_path / "choices.jsonl").write_text("\n".join(lines))
    return place


def flat(text: str) -> str:
    """One space between words: the width of a column is no matter."""
    return " ".join(text.split())


def said(capsys) -> tuple[str, str]:
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_import_and_audit_of_hpd_show_the_position_bias(hpd: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "hpd"
    assert main(["data", "import", "hpd-v1", str(hpd), "--out", str(out)]) == 0
    told, _ = said(capsys)
    assert told.startswith(f"60 choices between 240 images of 60 prompts: {out}\n")
    assert "images without a file: 240" in told
    assert main(["data", "audit", str(out)]) == 0
    told, _ = said(capsys)
    assert "at random (chance) 25.0 % always the first 25.0 %" in flat(told)
    assert "always the last 50.0 % 37.7 to 62.3" in flat(told)
    assert "4 images place 4 30 of 60 50.0 %" in flat(told)
    assert "warning  position bias: always picking the last image is right in 50.0%" in told
    assert "note     missing files: 240 of 240 images have no file here" in told
    assert told.endswith("0 errors, 2 warnings, 2 notes\n")
    assert main(["data", "audit", str(out), "--strict"]) == 1
    assert main(["data", "audit", str(out), "--require-images"]) == 1
    said(capsys)
    assert main(["data", "audit", str(out), "--json"]) == 0
    assert json.loads(said(capsys)[0])["position"]["always_last"]["value"] == 0.5


def test_your_own_folder_comes_in_whole(folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "mine"
    command = ["data", "import", "folder", str(folder), "--out", str(out)]
    command += ["--choices", str(tmp_path / "choices.jsonl")]
    assert main(command) == 0
    assert said(capsys)[0] == f"2 choices between 4 images of 2 prompts: {out}\n"
    record = json.loads((out / "run.json").read_text())
    assert (record["verb"], record["status"]) == ("data import folder", "finished")
    assert record["result"]["faults"]["count"] == 0
    # the same command again finds its run
    assert main([*command, "--json"]) == 0
    assert json.loads(said(capsys)[0])["choices"] == 2
    assert main(["data", "audit", str(out), "--strict"]) == 0
    assert "0 errors, 0 warnings, 1 note" in said(capsys)[0]
    # other choices are another run
    (tmp_path / "choices.jsonl").write_text('{"images": ["a.png", "b.png"], "best": 1}')
    assert main(command) == 2
    assert "holds a run of 'data import folder' on other inputs" in said(capsys)[1]
    assert main([*command, "--overwrite"]) == 0
    assert len(load_dataset(out).choices) == 1


def test_show_prints_rows_columns_and_json(folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "mine"
    main(["data", "import", "folder", str(folder), "--out", str(out)])
    said(capsys)
    assert main(["data", "show", str(out), "--rows", "1"]) == 0
    told, _ = said(capsys)
    assert told.startswith("images: 4 rows\n  row 0\n    image        a.png\n")
    assert "row 1" not in told
    assert main(["data", "show", str(out / "images.parquet"), "--columns"]) == 0
    assert "image      string  Key of the image, unique in the table." in said(capsys)[0]
    assert main(["data", "show", str(out), "--json", "--rows", "2"]) == 0
    rows = [json.loads(line) for line in said(capsys)[0].splitlines()]
    assert [row["image"] for row in rows] == ["a.png", "b.png"]
    assert main(["data", "show", str(tmp_path / "nothing.parquet")]) == 2
    assert "is not there, or is no Parquet file" in said(capsys)[1]


def test_parts_share_nothing(hpd: Path, tmp_path: Path, capsys) -> None:
    out, parts = tmp_path / "hpd", tmp_path / "parts"
    main(["data", "import", "hpd-v1", str(hpd), "--out", str(out)])
    command = ["data", "split", str(out), "--out", str(parts), "--parts", "train=0.75,test=0.25"]
    said(capsys)
    assert main(command) == 0
    told, _ = said(capsys)
    assert f"{parts / 'train'}: 45 choices, 180 images" in told
    assert "60 groups of prompts and images that hang together" in told
    train, test = load_dataset(parts / "train"), load_dataset(parts / "test")
    prompts = [{row.prompt for row in to_rows(part.choices, Choice)} for part in (train, test)]
    assert len(prompts[0] | prompts[1]) == 60
    assert not prompts[0] & prompts[1]
    assert main([*command, "--json"]) == 0
    assert json.loads(said(capsys)[0])["parts"]["test"]["choices"] == 15
    assert main([*command[:-1], "train=0.5"]) == 2
    assert "the fractions sum to 0.5, expected 1" in said(capsys)[1]
    assert main([*command[:-1], "train"]) == 2
    assert "'train' is not name=fraction" in said(capsys)[1]


def test_an_audit_can_be_kept(folder: Path, tmp_path: Path, capsys) -> None:
    out, kept = tmp_path / "mine", tmp_path / "audit"
    main(["data", "import", "folder", str(folder), "--out", str(out)])
    (folder / "a.png").write_text("hello")
    assert main(["data", "audit", str(out), "--out", str(kept)]) == 0
    assert json.loads((kept / "audit.json").read_text())["findings"][0]["kind"] == (
        "unreadable files"
    )
    assert json.loads((kept / "run.json").read_text())["result"]["error"] == 1
    assert "error    unreadable files: 1 image files do not open" in said(capsys)[0]


def spoil(kind: str, folder: Path, hpd: Path) -> list[str]:
    """Break an input, and give the command that meets it."""
    if kind == "wrong path":
        return ["hpd-v1", str(hpd.with_name("nowhere.json"))]
    if kind == "truncated JSON":
        hpd.write_text(hpd.read_text()[:-100])
        return ["hpd-v1", str(hpd)]
    if kind == "index out of range":
        records = json.loads(hpd.read_text())
        records[12] |= {"human_preference": 4, "id": 47}
        hpd.write_text(json.dumps(records))
        return ["hpd-v1", str(hpd)]
    if kind == "text named png":
        (folder / "b.png").write_text("hello")
    elif kind == "truncated image":
        (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:-60])
    elif kind == "empty folder":
        folder = folder.parent / "empty"
        folder.mkdir()
    return ["folder", str(folder)]


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("wrong path", "nowhere.json: does not exist"),
        ("truncated JSON", "the JSON breaks off in record 59; the file is incomplete"),
        (
            "index out of range",
            "record 12 (id 47): human_preference is 4, but there are 4 images (0 to 3)",
        ),
        ("text named png", "b.png: is no image of a known format"),
        ("truncated image", "b.png: is truncated or damaged"),
        ("empty folder", "empty: holds no image file"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    kind: str, sentence: str, folder: Path, hpd: Path, tmp_path: Path, capsys
) -> None:
    command = spoil(kind, folder, hpd)
    before = sorted(tmp_path.rglob("*"))
    assert main(["data", "import", *command, "--out", str(tmp_path / "out")]) == 2
    told, error = said(capsys)
    assert told == ""
    assert error.startswith("error: ")
    assert sentence in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_an_import_never_deletes_its_own_images(folder: Path, tmp_path: Path, capsys) -> None:
    (folder / "run.json").write_text("{}")
    command = ["data", "import", "folder", str(folder), "--out", str(folder), "--overwrite"]
    assert main(command) == 2
    assert "holds files that are imported; choose another --out" in said(capsys)[1]
    assert (folder / "a.png").exists()


def test_ratings_come_in_with_named_columns(folder: Path, tmp_path: Path, capsys) -> None:
    table = tmp_path / "r.csv"
    table.write_text("who,pic,text,liking\nu,a,p,1\nu,b,p,3\nv,a,p,2\nv,b,p,2\nu,z,p,2\n")
    command = ["data", "import", "ratings", str(table), "--images", str(folder), "--rater", "who"]
    command += ["--image", "pic", "--prompt", "text", "--value", "liking", "--dimension", ""]
    command += ["--out", str(tmp_path / "rated")]
    assert main(command) == 2
    assert "1 of 3 rated images are not in" in said(capsys)[1]
    assert main([*command, "--missing-images", "drop", "--lower-is-better"]) == 0
    told, _ = said(capsys)
    assert told.startswith("2 choices between 2 images of 1 prompt")
    assert "images without a file: 1 (z)" in told
    assert "choices that tie all their images: 1" in told
    first, second = to_rows(load_dataset(tmp_path / "rated").choices, Choice)
    assert (first.ranks, second.ranks, first.dimension) == ((1, 2), (1, 1), "overall")


@pytest.mark.parametrize(
    "inner", [["import"], ["import", "hpd-v1"], ["import", "folder"], ["show"]]
)
def test_help_has_an_example(inner: list[str], capsys) -> None:
    assert main(["data", *inner, "--help"]) == 0
    told, _ = said(capsys)
    assert "Usage: palate data" in told
    assert "Example: palate data" in told or inner == ["import"]


def test_the_real_studies_come_in(shared: Path, tmp_path: Path, capsys) -> None:
    study, out = shared / "data" / "avt", tmp_path / "avt"
    assert (
        main(["data", "import", "ratings", str(study), "--preset", "avt", "--out", str(out)]) == 0
    )
    assert said(capsys)[0].startswith("658 choices between 69 images of 13 prompts")
    graded, out = shared / "data" / "simulacra", tmp_path / "graded"
    command = ["data", "import", "folder", str(graded), "--layout", "simulacra", "--out", str(out)]
    assert main(command) == 0
    assert said(capsys)[0].startswith("0 choices between 20 images of 20 prompts")


# ----------------------------------------------------------------------------------------- evaluate


@pytest.fixture
def scored(folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    out = tmp_path / "mine"
    choices = str(tmp_path / "choices.jsonl")
    main(["data", "import", "folder", str(folder), "--choices", choices, "--out", str(out)])
    rows = [
        Score(row.image, row.prompt, "s", "overall", float(k), "hps", "f00d")
        for k, row in enumerate(to_rows(load_dataset(out).images, Image))
    ]
    write_table(to_table(rows, "scores"), tmp_path / "scores" / "scores.parquet")
    return out, tmp_path / "scores"


def test_a_scorer_is_measured_next_to_chance(scored, tmp_path: Path, capsys) -> None:
    dataset, scores = scored
    said(capsys)
    command = ["evaluate", str(dataset), "--scores", str(scores)]
    assert main([*command, "--by", "size", "--out", str(tmp_path / "result")]) == 0
    told, _ = said(capsys)
    assert "s (hps, f00d)" in told
    assert "all 2 2 50.0 % (0.2 to 99.8) 50.0 %" in flat(told)
    assert "the intervals rest on 2 prompts and 2 people only" in flat(told)
    assert "score ties: expected" in told
    kept = json.loads((tmp_path / "result" / "run.json").read_text())
    assert kept["result"]["overall"]["top1"]["value"] == 0.5
    assert kept["inputs"].keys() == {"choices", "scores"}
    assert main([*command, "--json", "--ties", "wrong"]) == 0
    assert json.loads(said(capsys)[0])["settings"]["ties"] == "wrong"
    assert main(["evaluate", str(dataset / "choices.parquet"), "--scores", str(scores)]) == 0


def test_two_generators_are_compared(scored, tmp_path: Path, capsys) -> None:
    _, scores = scored
    said(capsys)
    command = ["evaluate", "--compare", str(scores), str(scores / "scores.parquet")]
    assert main(command) == 0
    told, _ = said(capsys)
    assert "first - second +0 (+0 to +0)" in flat(told)
    assert "2 pairs on 2 prompts by prompt: 0 won, 2 tied (count half), 0 lost" in told
    assert main([*command, "--json", "--pair", "image", "--out", str(tmp_path / "c")]) == 0
    assert json.loads(said(capsys)[0])["pairs"] == 4
    assert (tmp_path / "c" / "run.json").exists()


def test_evaluate_says_what_it_needs(scored, capsys) -> None:
    dataset, scores = scored
    said(capsys)
    assert main(["evaluate", str(dataset)]) == 2
    assert "give a data set and --scores, or --compare" in said(capsys)[1]
    assert main(["evaluate", str(dataset), "--compare", str(scores), str(scores)]) == 2
    assert "takes two tables of scores and nothing else" in said(capsys)[1]
    assert main(["evaluate", str(dataset), "--scores", "nowhere.parquet"]) == 2
    assert said(capsys)[1] == (
        "error: nowhere.parquet: does not exist, expected a Parquet file of scores\n"
    )
    assert main(["evaluate", "--help"]) == 0
    assert "Example: palate evaluate" in said(capsys)[0]

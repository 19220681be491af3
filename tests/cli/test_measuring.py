"""`palate stats correlation` and `distribution`: from image files to the table and the page."""

from __future__ import annotations

import csv
import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from palate.cli.main import main
from palate.data.records import Choice, Image, Score
from palate.data.tables import load_dataset, save_dataset, to_rows, to_table, write_table
from palate.evaluation import looks
from palate.evaluation.contrasts import (
    Contrast,
    CorrelationSettings,
    CorrelationStudy,
    printed_in_hps,
)
from palate.evaluation.correlation_page import against_null
from palate.evaluation.correlation_study import correlation_study
from palate.evaluation.distribution import MANY, PER_SPLIT
from palate.evaluation.image_sets import compare_image_sets
from palate.evaluation.looks import COLOURS, NamedExtractor, colour_histogram, look_at

QUICK = ("--relabellings", "39", "--resamples", "100")
PROMPTS = 16


def paint(path: Path, colour, rng) -> None:
    """A picture of one colour with a little noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = rng.integers(-40, 41, (12, 12, 3))
    PIL.Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """People choose the red one of three pictures of each prompt; the reference is red as well."""
    rng = np.random.default_rng(0)
    images, choices, scores = [], [], []
    for number in range(PROMPTS):
        keys = [f"{number:02d}-{name}" for name in ("red", "green", "grey")]
        for key, colour in zip(keys, ([200, 40, 40], [40, 200, 40], [120, 120, 120]), strict=True):
            paint(tmp_path / "data" / "images" / f"{key}.png", np.array(colour), rng)
            images.append(Image(key, f"prompt {number}", path=f"images/{key}.png"))
            value = float(rng.normal() + 2 * key.endswith("red"))
            scores += [
                Score(key, f"prompt {number}", name, "overall", sign * value, "hps", "f" * 64)
                for name, sign in (("good", 1), ("bad", -1))
            ]
        choices.append(Choice(f"c{number}", f"prompt {number}", tuple(keys), (1, 2, 2)))
    for number in range(30):
        paint(tmp_path / "real" / f"{number}.png", np.array([190, 50, 50]), rng)
    save_dataset(tmp_path / "data", to_table(images, "images"), to_table(choices, "choices"))
    write_table(to_table(scores, "scores"), tmp_path / "scores.parquet")
    return tmp_path


def run(capsys, *words: str | Path, status: int = 0) -> str:
    assert main(["stats", *map(str, words)]) == status
    told = capsys.readouterr()
    return told.err if status else told.out


def correlation(capsys, data: Path, *words: str | Path, status: int = 0) -> str:
    words = ("correlation", data / "data", "--reference", data / "real", *QUICK, *words)
    return run(capsys, *words, status=status)


class Pictures(HTMLParser):
    """Collects pictures and checks that tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.sources.append(dict(attrs)["src"])
        if tag in {"table", "ul", "div", "figure", "main", "tr", "svg", "p"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in {"table", "ul", "div", "figure", "main", "tr", "svg", "p"}:
            assert self.open.pop() == tag


@pytest.fixture
def counted(monkeypatch) -> list[int]:
    """How many pictures the colours were asked for, call by call."""
    calls: list[int] = []

    def look(pictures):
        calls.append(len(pictures))
        return colour_histogram(pictures)

    extractor = NamedExtractor(COLOURS.name, COLOURS.fingerprint, look)
    monkeypatch.setattr(looks, "COLOURS", extractor)
    return calls


def test_the_table_is_that_of_the_direct_call(data: Path, capsys) -> None:
    told = json.loads(
        correlation(
            *(capsys, data, "--colours", "--scores", data / "scores.parquet"),
            *("--seed", "3", "--relabellings", "199", "--json"),
        )
    )
    dataset = load_dataset(data / "data")
    seen = look_at(dataset.images, dataset.folder, COLOURS)
    rows = [Image(path.name, "", path=path.name) for path in sorted((data / "real").iterdir())]
    real = look_at(to_table(rows, "images"), data / "real", COLOURS)
    from palate.data.tables import read_table

    table = read_table(data / "scores.parquet", "scores")
    by_name = [
        table.filter([row["scorer"] == name for row in table.to_pylist()])
        for name in ("good", "bad")
    ]
    settings = CorrelationSettings(relabellings=199, resamples=100, seed=3)
    direct = correlation_study(dataset.choices, seen, by_name, real, settings)
    assert told == json.loads(json.dumps(direct.to_dict()))
    assert CorrelationStudy.from_dict(told) == direct
    verdicts = {row["measure"]: row["verdict"] for row in told["contrasts"]}
    assert verdicts["FID to the reference"] == verdicts["KID to the reference"] == "follows"
    assert (verdicts["good"], verdicts["bad"]) == ("follows", "goes against")


def test_a_run_is_kept_with_its_page_and_not_repeated(data: Path, capsys, counted) -> None:
    words = ("--colours", "--scores", data / "scores.parquet", "--out", data / "out")
    told = correlation(capsys, data, *words)
    assert "features of a histogram of 64 colours" in told
    assert "39 relabellings cannot make 5 measures separable, expected at least 99" in told
    assert "not of the Inception of published values" in told
    looked = list(counted)
    assert sum(looked) == 3 * PROMPTS + 30
    assert correlation(capsys, data, *words) == told
    assert counted == looked
    record = json.loads((data / "out" / "run.json").read_text())
    assert record["files"] == ["study.csv", "study.html", "study.json", "study.md"]
    with (data / "out" / "study.csv").open() as file:
        rows = list(csv.DictReader(file))
    study = json.loads((data / "out" / "study.json").read_text())
    for row, contrast in zip(rows, study["contrasts"], strict=True):
        assert float(row["difference"]) == contrast["difference"]
        assert row["verdict"] == contrast["verdict"]
    assert "| KID to the reference |" in (data / "out" / "study.md").read_text()


def test_the_page_has_the_measures_the_cautions_and_pictures(data: Path, capsys) -> None:
    correlation(capsys, data, "--colours", "--out", data / "out")
    page = (data / "out" / "study.html").read_text()
    parser = Pictures()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.sources) == 18  # six choices of three pictures
    assert all(source.startswith("data:image/jpeg;base64,") for source in parser.sources)
    assert page.count('class="shot chosen"') == 6
    study = json.loads((data / "out" / "study.json").read_text())
    for text in (*(row["measure"] for row in study["contrasts"]), *study["cautions"]):
        assert text in page
    assert "16.27" in page  # as a sentence: colours stand in no table beside an Inception
    assert "<th>HPS paper</th>" not in page


def test_an_interrupted_run_does_not_look_again(data: Path, capsys, monkeypatch) -> None:
    words = ("--colours", "--out", data / "out")
    shown: list[int] = []

    def look(pictures):
        shown.append(len(pictures))
        if len(shown) == 2:
            raise KeyboardInterrupt
        return colour_histogram(pictures)

    monkeypatch.setattr(looks, "COLOURS", NamedExtractor(COLOURS.name, COLOURS.fingerprint, look))
    assert "interrupted" in correlation(capsys, data, *words, status=130)
    first = shown[0]
    correlation(capsys, data, *words)
    assert sum(shown[2:]) == 3 * PROMPTS + 30 - first
    monkeypatch.undo()
    correlation(capsys, data, "--colours", "--out", data / "again")
    one, other = ((data / name / "study.json").read_text() for name in ("out", "again"))
    assert one == other


def test_kept_features_serve_runs_with_other_settings(data: Path, capsys, counted) -> None:
    words = ("--colours", "--features", data / "kept")
    correlation(capsys, data, *words, "--out", data / "one")
    before = sum(counted)
    correlation(capsys, data, *words, "--out", data / "two", "--seed", "9")
    run(
        *(capsys, "distribution", data / "data", "--reference", data / "real"),
        *("--colours", "--features", data / "kept", "--points", "0"),
    )
    assert sum(counted) == before


def test_files_that_do_not_open_are_refused_or_left_out(data: Path, capsys) -> None:
    (data / "data" / "images" / "03-red.png").unlink()
    (data / "real" / "7.png").write_bytes(b"no image")
    told = correlation(capsys, data, "--colours", status=2)
    assert told == "error: image '03-red' was not looked at: 03-red.png: does not exist\n"
    told = correlation(capsys, data, "--colours", "--missing", "leave-out")
    assert "1 choices left out: an image that was not looked at" in told
    assert "1 reference images left out, the first: 7.png: " in told


def test_a_recipe_and_a_table_of_choices_alone(data: Path, capsys) -> None:
    recipe = data / "r.toml"
    recipe.write_text("[correlation]\nrelabellings = 19\nlevel = 0.9\n")
    words = ("--scores", data / "scores.parquet", "--recipe", recipe, "--json")
    told = json.loads(run(capsys, "correlation", data / "data" / "choices.parquet", *words))
    assert told["settings"]["relabellings"] == 19
    assert [row["measure"] for row in told["contrasts"]] == ["good", "bad"]
    recipe.write_text("[correlation]\nrelabeling = 19\n")
    told = run(capsys, "correlation", data / "data", *words, status=2)
    assert "did you mean 'relabellings'?" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to compare by: give --scores, or --inception, --eye or --colours"),
        (["--colours", "--eye", "miniature"], "--eye and --colours exclude each other"),
        (["--colours", "--variant", "fid"], "--variant and --preparation go with --inception"),
        (["--scores", "S"], "--reference goes with --inception, --eye or --colours"),
        (["--inception", "none.pth"], "none.pth: no such weights file"),
        (["--inception", "S"], "scores.parquet: "),
        (["--inception", "none.pth", "--device", "gpu"], "device is 'gpu', expected cpu, cuda"),
        (["--eye", "nobody"], "no scorer or folder called 'nobody'"),
        (["--colours", "--relabellings", "3"], "3 relabellings cannot reach the level 0.95"),
        (["--colours", "--reference", "empty"], "empty: holds no image file"),
        (["--colours", "--reference", "nowhere"], "nowhere: no such file or folder"),
        (["--colours", "--dimension", "x"], "there are no choices on the dimension 'x'"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    data: Path, capsys, monkeypatch, words, message
) -> None:
    monkeypatch.chdir(data)
    (data / "empty").mkdir()
    words = ["scores.parquet" if word == "S" else word for word in words]
    told = correlation(capsys, data, *words, status=2)
    assert message in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1


def test_refused_choices_leave_no_run_behind(data: Path, capsys) -> None:
    found = load_dataset(data / "data")
    rows = list(to_rows(found.choices, Choice))
    more = [replace(row, choice=f"{row.choice}-more", dimension="detail") for row in rows]
    save_dataset(data / "data", found.images, to_table([*rows, *more], "choices"))
    out = data / "out"
    told = correlation(capsys, data, "--colours", "--out", out, status=2)
    assert "(detail, overall), expected one: name the dimension" in told
    assert not out.exists()
    correlation(capsys, data, "--colours", "--dimension", "detail", "--out", out)
    assert (out / "study.json").is_file()


def test_the_commands_of_the_page_run(data: Path, root: Path, capsys, monkeypatch) -> None:
    page = (root / "docs" / "statistics" / "distribution.md").read_text("utf-8")
    block = re.search(r"```console\n(.*?)```", page, re.DOTALL)
    assert block is not None
    monkeypatch.chdir(data)
    lines = block.group(1).splitlines()
    assert len(lines) == 2
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    assert {"study.csv", "study.html", "study.json", "study.md"} <= {
        path.name for path in (data / "study").iterdir()
    }
    for measure, pair in printed_in_hps().items():
        column = ["Inception Score", "FID to the reference"].index(measure) + 1
        for row, told in zip(("that people chose", "that they did not choose"), pair, strict=True):
            line = next(line for line in page.splitlines() if line.startswith(f"| {row} |"))
            assert line.split("|")[column + 1].strip() == told
    assert f"better {MANY:,}" in page
    assert f"| {PER_SPLIT:,} per split |" in page


def test_choices_without_images_cannot_be_looked_at(data: Path, capsys) -> None:
    told = run(capsys, "correlation", data / "data" / "choices.parquet", "--colours", status=2)
    assert "has choices and no table of images" in told


def narrow_file(path: Path, monkeypatch) -> None:
    """Write random weights of a narrow Inception, and let the reader expect such."""
    import torch

    from palate.models import inception

    torch.save(inception.random_inception(seed=1).state_dict(), path)
    wide = inception.Inception

    class Narrow(wide):
        def __init__(self, variant) -> None:
            super().__init__(variant, width=1 / 16, classes=10)

    monkeypatch.setattr(inception, "Inception", Narrow)


def test_an_inception_stands_beside_the_papers_values(data: Path, capsys, monkeypatch) -> None:
    pytest.importorskip("torch")
    narrow_file(data / "w.pth", monkeypatch)
    few = load_dataset(data / "data")
    save_dataset(data / "data", few.images, few.choices.slice(0, 4))
    for path in sorted((data / "real").iterdir())[6:]:
        path.unlink()
    words = ("--inception", data / "w.pth", "--preparation", "clean-fid", "--out", data / "out")
    told = correlation(capsys, data, *words)
    assert "features of Inception (fid, clean-fid)" in told
    assert "not of the Inception" not in told
    row = next(line for line in told.splitlines() if line.startswith("Inception Score"))
    assert row.endswith("16.27 and 16.23")
    page = (data / "out" / "study.html").read_text()
    assert "<th>HPS paper</th>" in page
    assert "<td>38.2<br>37.7</td>" in page
    # the same folder with another preparation is another run
    other = ("--inception", data / "w.pth", "--out", data / "out")
    assert "with other settings (features.name" in correlation(capsys, data, *other, status=2)


def test_a_scorers_eye_sees(data: Path, capsys) -> None:
    pytest.importorskip("torch")
    told = correlation(capsys, data, "--eye", "miniature")
    assert "features of the eye of miniature" in told
    assert "FID to the reference" in told
    assert "Inception Score " not in told.split("\n\n")[1]


def test_the_weights_of_the_other_variant_are_recognised(data: Path, capsys, monkeypatch) -> None:
    torch = pytest.importorskip("torch")
    from palate.models import inception

    def weights(_):
        with torch.device("meta"):
            shapes = inception.Inception("torchvision").state_dict()
        return {name: torch.zeros(()).expand(value.shape) for name, value in shapes.items()}

    monkeypatch.setattr(inception, "read_weights", weights)
    told = correlation(capsys, data, "--inception", "w.pth", status=2)
    assert "it has the 1,000 classes of the variant 'torchvision'" in told


def test_distribution_is_the_direct_call(data: Path, capsys) -> None:
    words = ("distribution", data / "data", "--reference", data / "real", "--colours")
    told = json.loads(run(capsys, *words, "--splits", "2", "--json"))
    dataset = load_dataset(data / "data")
    seen = look_at(dataset.images, dataset.folder, COLOURS)
    rows = [Image(path.name, "", path=path.name) for path in sorted((data / "real").iterdir())]
    real = look_at(to_table(rows, "images"), data / "real", COLOURS)
    from palate.evaluation.image_sets import DistributionSettings

    direct = compare_image_sets(seen, real, DistributionSettings(splits=2))
    assert told == json.loads(json.dumps(direct.to_dict()))
    text = run(capsys, *words)
    assert text.startswith("48 images beside 30 of the reference\n")
    for name in ("FID∞", "KID", "Inception Score of the reference", "sets of 48 and 30 images"):
        assert name in text


def test_distribution_takes_a_recipe_and_options_win(data: Path, capsys) -> None:
    recipe = data / "r.toml"
    recipe.write_text("[distribution]\nsplits = 3\npoints = 0\n")
    words = ("distribution", data / "data", "--reference", data / "real", "--colours")
    told = json.loads(run(capsys, *words, "--recipe", recipe, "--splits", "2", "--json"))
    assert (told["settings"]["splits"], told["settings"]["points"]) == (2, 0)
    recipe.write_text("[distribution]\nsplit = 3\n")
    said = run(capsys, *words, "--recipe", recipe, status=2)
    assert "unknown setting 'split'; did you mean 'splits'?" in said


def test_distribution_keeps_its_result(data: Path, capsys, counted) -> None:
    words = ("distribution", data / "real", "--reference", data / "data", "--colours")
    told = run(capsys, *words, "--out", data / "out")
    before = len(counted)
    assert run(capsys, *words, "--out", data / "out") == told
    assert len(counted) == before
    facts = json.loads(run(capsys, *words, "--out", data / "out", "--json"))
    assert facts == json.loads((data / "out" / "distribution.json").read_text())


def test_distribution_reads_statistics_and_says_what_they_lack(data: Path, capsys) -> None:
    dataset = load_dataset(data / "data")
    features = look_at(dataset.images, dataset.folder, COLOURS).features
    stats = data / "stats.npz"
    np.savez(stats, mu=features.mean(axis=0), sigma=np.cov(features, rowvar=False))
    words = ("distribution", data / "real", "--colours", "--json", "--reference")
    by_file, by_images = (
        json.loads(run(capsys, *words, reference)) for reference in (stats, data / "data")
    )
    assert by_file["fid"] == pytest.approx(by_images["fid"], abs=1e-6)
    assert by_file["kid"] is None
    np.savez(stats, mu=np.zeros(2048), sigma=np.eye(2048))
    told = run(capsys, *words, stats, status=2)
    assert "features of 64 numbers and the reference of 2,048, expected the same extractor" in told


def test_distribution_refuses_what_does_not_open_unless_told(data: Path, capsys) -> None:
    (data / "real" / "7.png").write_bytes(b"no image")
    words = ("distribution", data / "data", "--reference", data / "real", "--colours")
    assert "image '7.png' was not looked at" in run(capsys, *words, status=2)
    told = run(capsys, *words, "--missing", "leave-out")
    assert "1 images of the reference left out, the first: 7.png" in told
    told = run(capsys, "distribution", data / "data", "--reference", data / "real", status=2)
    assert told == "error: nothing to look with: give --inception, --eye or --colours\n"


def contrast(**facts) -> Contrast:
    given = {"measure": "m", "better": "higher", "chosen": None, "others": None, "difference": 3.0}
    given |= {"low": 2.0, "high": 5.0, "null_mean": 0.0, "null_low": -1.0, "null_high": 3.0}
    return Contrast(**(given | {"p_value": 0.1, "adjusted": 0.1, "level": 0.95} | facts))


def test_the_plot_puts_every_measure_on_the_scale_of_its_null() -> None:
    assert against_null(contrast()) == (1.0, 0.5, 2.0)
    assert against_null(contrast(better="lower")) == (-1.0, -2.0, -0.5)
    assert against_null(contrast(better="distance", low=None, high=None)) == (1.0, 1.0, 1.0)
    assert against_null(contrast(null_low=3.0)) == (0.0, 0.0, 0.0)

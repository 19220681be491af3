"""What goes wrong while training is one sentence, and what was saved before stays good."""

from __future__ import annotations

import errno
import json
import os
import shutil
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch

from palate.cli.main import main
from palate.data.records import Choice, pick_ranks
from palate.data.tables import load_dataset, save_dataset, to_rows, to_table
from palate.models.clip_files import load_clip, save_clip
from palate.models.tiny import tiny_clip
from palate.training.loop import STATE

resource = pytest.importorskip("resource")


@pytest.fixture
def place(tmp_path, dataset, held_out):
    """Data sets to spoil, and a base."""
    shutil.copytree(dataset.folder, tmp_path / "data")
    shutil.copytree(held_out.folder, tmp_path / "held")
    save_clip(tiny_clip(0), tmp_path / "base")
    return tmp_path


def command(place, *more, out="run"):
    words = ["train", str(place / "data"), "--base", str(place / "base"), "--out", str(place / out)]
    words += ["--steps", "6", "--batch", "4", "--image-layers", "1", "--text-layers", "1"]
    return [*words, "--save-every", "2", *more]


def sentence(capsys):
    """Give the one line that a command said."""
    said = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in said if line.startswith("error: ")]
    assert len(errors) == 1
    assert said[-1] == errors[0]
    return errors[0]


def state_of(place):
    return torch.load(place / "run" / STATE, weights_only=True)


def break_at(monkeypatch, step):
    """Let the next training be interrupted before a step."""
    import palate.training.train as module

    real = module.batch_at

    def crash(groups, at, size, seed, **more):
        if at == step:
            raise KeyboardInterrupt
        return real(groups, at, size, seed, **more)

    monkeypatch.setattr(module, "batch_at", crash)


def interrupted(place, monkeypatch, *more):
    with monkeypatch.context() as patch:
        break_at(patch, 3)
        assert main(command(place, *more)) != 0
    assert state_of(place)["step"] == 2


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\nhalf"])
def test_an_image_that_cannot_be_read_is_named(place, capsys, content):
    (place / "data" / "images" / "1-3-0.png").write_bytes(content)
    assert main(command(place)) == 2
    assert "1-3-0.png" in sentence(capsys)
    assert not (place / "run" / STATE).exists()
    assert json.loads((place / "run" / "run.json").read_text())["status"] == "failed"


def test_an_image_that_is_not_in_the_table_is_named(place, capsys):
    data = load_dataset(place / "data")
    key = data.choices["images"][0].as_py()[0]
    kept = data.images.filter([image != key for image in data.images["image"].to_pylist()])
    pq.write_table(kept, place / "data" / "images.parquet")
    assert main(command(place)) == 2
    said = sentence(capsys)
    assert f"image '{key}' is not in images.parquet" in said
    assert "choices.parquet, row 0" in said
    assert not (place / "run").exists()


def test_choices_without_the_dimension_say_which_there_are(place, capsys):
    assert main(command(place, "--dimension", "aesthetics")) == 2
    assert sentence(capsys).endswith("no choices on 'aesthetics', there are ['overall']")


@pytest.mark.parametrize("validated", [False, True])
def test_a_loss_that_is_not_a_number_stops_and_keeps_the_state_before(
    place, capsys, monkeypatch, validated
):
    """The rate is fine for two steps, and 1e30 from the third on, as a fault of the numbers would be."""
    import palate.training.loop as module

    how = ["--validation", str(place / "held")] if validated else []
    recipe = place / "r.toml"
    recipe.write_text("[train]\nevaluate_every = 2\n")
    how += ["--recipe", str(recipe)]
    real = module.learning_rate
    monkeypatch.setattr(module, "learning_rate", lambda at, how: real(at, how) if at < 2 else 1e30)
    assert main(command(place, *how)) == 2
    said = sentence(capsys)
    assert "step 4" in said
    assert "try a lower learning_rate" in said
    state = state_of(place)
    assert state["step"] == 2
    assert all(bool(value.isfinite().all()) for value in state["parameters"].values())
    record = json.loads((place / "run" / "run.json").read_text())
    assert record["status"] == "failed"
    assert not (place / "run" / "palate.json").exists()
    # the same command goes on from the state, and with a sound rate it ends
    monkeypatch.setattr(module, "learning_rate", real)
    assert main(command(place, *how)) == 0
    assert main(command(place, *how, out="whole")) == 0
    one, other = (load_clip(place / name).model.state_dict() for name in ("run", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_rate_that_is_far_too_high_is_told_and_a_lower_one_is_another_run(place, capsys):
    assert main(command(place, "--learning-rate", "1e30")) == 2
    assert sentence(capsys) == (
        "error: the loss is nan at step 2; expected a finite number, so try a lower learning_rate"
    )
    assert main(command(place, "--learning-rate", "1e-4")) == 2
    said = sentence(capsys)
    assert "learning_rate" in said
    assert "--overwrite" in said
    assert main(command(place, "--learning-rate", "1e-4", "--overwrite")) == 0


def test_parameters_that_are_not_finite_do_not_replace_a_state(place, capsys, monkeypatch):
    """A last update may spoil what its loss does not show any more."""
    import palate.training.loop as module

    interrupted(place, monkeypatch)
    before = (place / "run" / STATE).read_bytes()
    real = module._State.average

    def spoil(self):
        real(self)
        if self.step == 4:
            value = next(iter(self.parameters.values()))
            value.data.view(-1)[0] = float("inf")

    monkeypatch.setattr(module._State, "average", spoil)
    capsys.readouterr()
    assert main(command(place)) == 2
    assert "not finite after step 4, so that they are not saved" in sentence(capsys)
    assert (place / "run" / STATE).read_bytes() == before


def test_a_full_disk_leaves_the_state_before(place, capsys, monkeypatch):
    """The system refuses larger files than the run record: the new state cannot be written."""
    interrupted(place, monkeypatch)
    before = (place / "run" / STATE).read_bytes()
    assert len(before) > 100_000
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    capsys.readouterr()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        assert main(command(place)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"{STATE}: could not be written: File too large" in sentence(capsys)
    assert (place / "run" / STATE).read_bytes() == before
    assert [path.name for path in (place / "run").glob(".*tmp*")] == []
    assert main(command(place)) == 0
    assert main(command(place, out="whole")) == 0
    one, other = (load_clip(place / name).model.state_dict() for name in ("run", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_full_disk_told_by_the_system_is_the_same(place, capsys, monkeypatch):
    import palate.training.loop as module

    interrupted(place, monkeypatch)
    before = (place / "run" / STATE).read_bytes()

    class Broken(module._StateFile):
        def save(self, state):
            self.file = SimpleNamespace(write=full)
            super().save(state)

    def full(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_StateFile", Broken)
    capsys.readouterr()
    assert main(command(place)) == 2
    assert sentence(capsys).endswith("could not be written: No space left on device")
    assert (place / "run" / STATE).read_bytes() == before


def test_ctrl_c_while_a_state_is_saved_is_an_interruption(place, capsys, monkeypatch):
    import palate.training.loop as module

    interrupted(place, monkeypatch)
    before = (place / "run" / STATE).read_bytes()

    class Interrupted(module._StateFile):
        def save(self, state):
            self.file = SimpleNamespace(write=stop)
            super().save(state)

    def stop(data):
        raise KeyboardInterrupt

    with monkeypatch.context() as now:
        now.setattr(module, "_StateFile", Interrupted)
        capsys.readouterr()
        assert main(command(place)) == 130
    assert (place / "run" / STATE).read_bytes() == before
    assert json.loads((place / "run" / "run.json").read_text())["status"] == "interrupted"
    assert main(command(place)) == 0


@pytest.mark.parametrize("which", ["choices", "validation", "base"])
def test_other_data_than_the_run_began_with_is_refused(place, capsys, monkeypatch, which):
    more = ["--validation", str(place / "held")]
    interrupted(place, monkeypatch, *more)
    before = (place / "run" / STATE).read_bytes()
    if which == "base":
        shutil.rmtree(place / "base")
        save_clip(tiny_clip(1), place / "base")
    else:
        spoil(place / ("data" if which == "choices" else "held"))
    capsys.readouterr()
    assert main(command(place, *more)) == 2
    assert which in sentence(capsys)
    assert (place / "run" / STATE).read_bytes() == before


def spoil(folder):
    """Let one choice of a data set pick another image."""
    data = load_dataset(folder)
    first, *others = to_rows(data.choices, Choice)
    winner = (first.ranks.index(1) + 1) % len(first.ranks)
    changed = Choice(
        choice=first.choice,
        prompt=first.prompt,
        images=first.images,
        ranks=pick_ranks(len(first.ranks), winner),
    )
    save_dataset(folder, data.images, to_table([changed, *others], "choices"))

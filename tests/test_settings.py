from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import DataError, SettingsError
from palate.settings import read_settings, settings_dict


@dataclass(frozen=True)
class Optimizer:
    warmup_steps: int = 3
    rate: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Settings:
    optimizer: Optimizer = field(default_factory=Optimizer)
    steps: int = 5
    shuffle: bool = True
    rule: Literal["first", "best"] = "first"
    path: Path | None = None
    stages: tuple[Optimizer, ...] = ()
    named: dict[str, Optimizer] = field(default_factory=dict)
    spare: Annotated[Optimizer | None, "a second one"] = None

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps should be at least 0, not {self.steps}")
        if self.steps > 100:
            raise DataError("more than 100 steps")


@dataclass(frozen=True)
class Needy:
    steps: int


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        Path("hps.toml").write_text(text, encoding="utf-8")
        return Path("hps.toml")

    return write


def test_defaults_without_a_file():
    assert read_settings(Settings, None) == Settings()


def test_a_file_and_what_is_given_on_top(recipe):
    path = recipe("steps = 7\npath = 'a/b'\n[optimizer]\nrate = 1\nbetas = [0.5, 0.6]\n")
    read = read_settings(Settings, path, {"steps": 9, "optimizer.warmup_steps": 1, "rule": None})
    assert read == Settings(
        optimizer=Optimizer(warmup_steps=1, rate=1.0, betas=(0.5, 0.6)), steps=9, path=Path("a/b")
    )
    assert isinstance(read.optimizer.rate, float)


def test_given_tables_as_dictionary_or_dataclass(recipe):
    path = recipe("[optimizer]\nrate = 2.0\n")
    assert read_settings(Settings, path, {"optimizer": {"warmup_steps": 1}}).optimizer == Optimizer(
        warmup_steps=1, rate=2.0
    )
    assert read_settings(Settings, path, {"optimizer": Optimizer(7)}).optimizer == Optimizer(7)


def test_one_table_per_verb(recipe):
    path = recipe("[train]\nsteps = 1\n[label]\nsteps = 2\n[result]\naccuracy = 0.5\n")
    assert read_settings(Settings, path, section="train").steps == 1
    assert read_settings(Settings, path, section="label").steps == 2


REFUSED = {
    "steps = 'ten'": "hps.toml: 'steps' should be an integer, not \"ten\"",
    "steps = 1.5": "hps.toml: 'steps' should be an integer, not 1.5",
    "steps = true": "hps.toml: 'steps' should be an integer, not true",
    "shuffle = 1": "hps.toml: 'shuffle' should be a boolean, not 1",
    "path = 3": "hps.toml: 'path' should be a string, not 3",
    "rule = 'last'": "hps.toml: 'rule' should be 'first' or 'best', not \"last\"",
    "step = 1": "hps.toml: unknown setting 'step'; did you mean 'steps'?",
    "optimizer = 3": "hps.toml: 'optimizer' should be a table, not 3",
    "[optimizer]\nwarmup_step = 3": (
        "hps.toml: optimizer: unknown setting 'warmup_step'; did you mean 'warmup_steps'?"
    ),
    "[optimizer]\nzzz = 3": (
        "hps.toml: optimizer: unknown setting 'zzz'; the settings are warmup_steps, rate, betas"
    ),
    "[optimizer]\nrate = '1'": "hps.toml: optimizer: 'rate' should be a number, not \"1\"",
    "[optimizer]\nbetas = [1.0]": (
        "hps.toml: optimizer.betas: too few values: number 2 is missing"
    ),
    "[[stages]]\n[[stages]]\nrat = 1": (
        "hps.toml: stages.1: unknown setting 'rat'; did you mean 'rate'?"
    ),
    "[named.a]\nrat = 1": "hps.toml: named.a: unknown setting 'rat'; did you mean 'rate'?",
    "[spare]\nrat = 1": "hps.toml: spare: unknown setting 'rat'; did you mean 'rate'?",
    "steps = -1": "hps.toml: steps should be at least 0, not -1",
    "steps = 101": "hps.toml: more than 100 steps",
    "steps =": "hps.toml: not a TOML file: Invalid value (at end of document)",
}


@pytest.mark.parametrize("text", REFUSED)
def test_refused_in_one_sentence(recipe, text):
    with pytest.raises(SettingsError) as refused:
        read_settings(Settings, recipe(text))
    assert str(refused.value) == REFUSED[text]


def test_the_section_is_named_in_the_sentence(recipe):
    with pytest.raises(SettingsError, match=r"^hps.toml: train: unknown setting 'step'"):
        read_settings(Settings, recipe("[train]\nstep = 1"), section="train")
    with pytest.raises(
        SettingsError, match=r"^hps.toml: train.optimizer: 'rate' should be a number"
    ):
        read_settings(Settings, recipe("[train.optimizer]\nrate = 'a'"), section="train")
    with pytest.raises(SettingsError, match=r"^hps.toml: train.optimizer: unknown setting 'rat'"):
        read_settings(Settings, recipe("[train.optimizer]\nrat = 1"), section="train")


def test_a_section_that_is_not_there(recipe):
    with pytest.raises(SettingsError) as refused:
        read_settings(Settings, recipe("[trian]\nsteps = 1"), section="train")
    assert str(refused.value) == "hps.toml: no table [train]; it has [trian]; did you mean 'trian'?"
    with pytest.raises(SettingsError, match=r"'train' should be a table, \[train\], not a value"):
        read_settings(Settings, recipe("train = 1"), section="train")


def test_what_is_given_is_named_as_given(recipe):
    path = recipe("steps = 1")
    with pytest.raises(SettingsError, match=r"^settings given: 'steps' should be an integer"):
        read_settings(Settings, path, {"steps": "ten"})
    with pytest.raises(SettingsError, match=r"^settings given: optimizer: unknown setting 'rat'"):
        read_settings(Settings, path, {"optimizer.rat": 1})


def test_a_missing_setting(recipe):
    with pytest.raises(SettingsError, match=r"^hps.toml: setting 'steps' is missing$"):
        read_settings(Needy, recipe(""))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SettingsError, match="no such file"):
        read_settings(Settings, tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="could not be read: Is a directory"):
        read_settings(Settings, tmp_path)
    (tmp_path / "latin.toml").write_bytes("rule = 'ä'".encode("latin-1"))
    with pytest.raises(SettingsError, match="not UTF-8"):
        read_settings(Settings, tmp_path / "latin.toml")


@given(
    st.builds(
        Settings,
        optimizer=st.builds(
            Optimizer,
            warmup_steps=st.integers(0, 2**40),
            rate=st.floats(allow_nan=False, allow_infinity=False),
        ),
        steps=st.integers(0, 100),
        shuffle=st.booleans(),
        path=st.none() | st.just(Path("a/b")),
        stages=st.lists(st.builds(Optimizer), max_size=3).map(tuple),
    )
)
def test_settings_survive_their_dictionary(settings):
    plain = settings_dict(settings)
    assert json.loads(json.dumps(plain)) == plain
    assert read_settings(Settings, None, plain) == settings


def test_infinity_is_a_number(recipe):
    assert math.isinf(read_settings(Settings, recipe("[optimizer]\nrate = inf")).optimizer.rate)

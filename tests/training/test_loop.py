"""The loop: resumes bit for bit, warms up and cools down, keeps the best, and says when it fails."""

from __future__ import annotations

import errno
import math
import os

import pytest
import torch
from torch.nn import Parameter

from palate.errors import RunError, SettingsError
from palate.training.loop import STATE, LoopSettings, fit, learning_rate


class Regression:
    """A small task whose data depend on the step."""

    def __init__(self):
        self.weight, self.bias = Parameter(torch.zeros(4, 3)), Parameter(torch.zeros(3))
        self.parameters = {"weight": self.weight, "bias": self.bias}
        self.evaluated = 0

    def losses_at(self, step):
        random = torch.Generator().manual_seed(step)
        x = torch.randn(8, 4, generator=random)
        wanted = x.sum(-1, keepdim=True) * torch.tensor([1.0, 2.0, 3.0])
        loss = (x @ self.weight + self.bias - wanted).square().mean()
        yield loss, {"norm": self.weight.detach().norm()}

    def evaluate(self, step):
        del step
        self.evaluated += 1
        error = (self.weight.detach() - torch.tensor([1.0, 2.0, 3.0])).square().mean().item()
        return {"loss": error, "accuracy": -error}


def settings(**changes):
    values = {"steps": 6, "learning_rate": 0.05, "weight_decay": 0.1, "warmup_steps": 2}
    values |= {"save_every": 3, "evaluate_every": 2, "log_every": 2}
    return LoopSettings(**(values | changes))


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("stop", [1, 3, 4, 5])
def test_six_steps_are_three_a_crash_and_three(tmp_path, ema, stop):
    how = settings(ema=ema)
    whole = Regression()
    expected = fit(
        whole.parameters, whole.losses_at, how, tmp_path / "whole", evaluate=whole.evaluate
    )
    broken = Regression()

    def crash(step):
        if step == stop:
            raise KeyboardInterrupt
        return broken.losses_at(step)

    with pytest.raises(KeyboardInterrupt):
        fit(broken.parameters, crash, how, tmp_path / "part", evaluate=broken.evaluate)
    resumed = Regression()
    found = fit(
        resumed.parameters, resumed.losses_at, how, tmp_path / "part", evaluate=resumed.evaluate
    )
    assert torch.equal(resumed.weight, whole.weight)
    assert torch.equal(resumed.bias, whole.bias)
    assert found.train == expected.train
    assert found.validation == expected.validation
    assert (found.best_step, found.best_value) == (expected.best_step, expected.best_value)


def test_what_is_logged_is_the_mean_over_the_parts_of_a_step(tmp_path):
    weight = Parameter(torch.zeros(2, 2))

    def losses_at(step):
        del step
        for value in (1.0, 3.0, math.nan):
            yield weight.sum(), {"part": torch.tensor(value)}

    found = fit({"weight": weight}, losses_at, settings(), tmp_path)
    assert {point["part"] for point in found.train} == {2.0}


def test_a_finished_loop_starts_no_new_step(tmp_path):
    task = Regression()
    fit(task.parameters, task.losses_at, settings(), tmp_path)
    before = task.weight.detach().clone()

    def never(step):
        raise AssertionError(step)

    again = Regression()
    fit(again.parameters, never, settings(), tmp_path)
    assert torch.equal(again.weight, before)


def test_the_best_parameters_stay(tmp_path):
    task = Regression()
    worth = iter([0.1, 0.9, 0.3])
    kept = []

    def evaluate(step):
        assert step == 2 * len(kept) + 2
        kept.append(task.weight.detach().clone())
        return {"accuracy": next(worth)}

    found = fit(task.parameters, task.losses_at, settings(), tmp_path, evaluate=evaluate)
    assert (found.best_step, found.best_value) == (4, 0.9)
    assert torch.equal(task.weight, kept[1])
    assert not torch.equal(task.weight, kept[2])


def test_without_validation_the_last_parameters_stay(tmp_path):
    task = Regression()
    found = fit(task.parameters, task.losses_at, settings(), tmp_path)
    assert found.best_step == 6
    assert torch.equal(found.best["weight"], task.weight)


def test_the_average_is_its_slow_twin(tmp_path):
    how = settings(ema=0.8, steps=4)
    plain, slow = Regression(), torch.zeros(4, 3)
    steps = []
    fit(
        plain.parameters,
        plain.losses_at,
        settings(steps=4),
        tmp_path / "plain",
        after_step=lambda: steps.append(plain.weight.detach().clone()),
    )
    for weight in steps:
        slow = 0.8 * slow + 0.2 * weight
    averaged = Regression()
    fit(averaged.parameters, averaged.losses_at, how, tmp_path / "averaged")
    assert torch.allclose(averaged.weight, slow, atol=1e-6)


def test_the_loop_is_adamw_with_the_stated_schedule(tmp_path):
    """The twin is PyTorch's own optimiser and scheduler, driven by hand."""
    how = settings(clip=0.5)
    task, twin = Regression(), Regression()
    fit(task.parameters, task.losses_at, how, tmp_path)
    optimiser = torch.optim.AdamW(
        [
            {"params": [twin.weight], "weight_decay": 0.1},
            {"params": [twin.bias], "weight_decay": 0.0},
        ],
        lr=1.0,
        betas=(0.9, 0.98),
        eps=1e-6,
    )
    rates = [0.025, 0.05] + [0.05 * 0.5 * (1 + math.cos(math.pi * part / 4)) for part in range(4)]
    for step, rate in enumerate(rates):
        assert math.isclose(rate, learning_rate(step, how))
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        next(twin.losses_at(step))[0].backward()
        torch.nn.utils.clip_grad_norm_([twin.weight, twin.bias], 0.5)
        optimiser.step()
    assert torch.equal(task.weight, twin.weight)


def test_a_constant_schedule_stays_after_the_warm_up():
    how = settings(schedule="constant")
    assert [learning_rate(step, how) for step in range(4)] == [0.025, 0.05, 0.05, 0.05]


def test_a_loss_that_is_not_finite_is_told_with_its_step(tmp_path):
    task = Regression()

    def bad(step):
        for loss, _ in task.losses_at(step):
            yield loss * (math.nan if step == 3 else 1), {}

    with pytest.raises(RunError, match=r"the loss is nan at step 4.*lower learning_rate"):
        fit(task.parameters, bad, settings(), tmp_path)


def test_a_state_of_other_settings_is_refused(tmp_path):
    task = Regression()
    fit(task.parameters, task.losses_at, settings(), tmp_path)
    with pytest.raises(RunError, match="other settings"):
        fit(task.parameters, task.losses_at, settings(learning_rate=0.1), tmp_path)


def test_a_full_disk_leaves_the_state_before(tmp_path, monkeypatch):
    import palate.training.loop as module

    task = Regression()
    begun = []

    class Opened(module._StateFile):
        def save(self, state):
            begun.append(state)
            if len(begun) == 2:
                self.file = FullDisk()
            super().save(state)

    class FullDisk:
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_StateFile", Opened)
    with pytest.raises(RunError, match="No space left"):
        fit(task.parameters, task.losses_at, settings(), tmp_path)
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert state["step"] == 3


@pytest.mark.parametrize(
    "changes",
    [{"steps": 0}, {"learning_rate": -1.0}, {"beta1": 1.0}, {"ema": 1.0}, {"save_every": 0}],
)
def test_numbers_outside_their_range_are_refused(changes):
    with pytest.raises(SettingsError, match=next(iter(changes))):
        settings(**changes)


def test_nothing_to_train_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="nothing is trained"):
        fit({}, lambda step: iter([(torch.zeros(()), {})]), settings(), tmp_path)

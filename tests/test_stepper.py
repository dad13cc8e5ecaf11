"""A step changes weights and counters together, or only the counters."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from asr.training.loop import make_accelerator
from asr.training.stepper import StepConfig, Stepper


@dataclass(frozen=True)
class Batch:
    features: Tensor
    seconds: float = 1800.0

    def to(self, device: torch.device) -> Batch:
        return Batch(self.features.to(device), self.seconds)


class Squares(nn.Linear):
    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:  # type: ignore[override]
        loss = super().forward(x).square().mean()
        return loss, {"square": loss}


def stepper(hours: float = 2.0) -> Stepper:
    torch.manual_seed(0)
    objective = Squares(3, 2)
    return Stepper(objective, objective, make_accelerator(), StepConfig(warmup_steps=1), hours)


def learn(made: Stepper, batches: list[Batch]) -> dict[str, float]:
    return made.step(batches, lambda batch, _: (batch.features,))


def test_steps_count_and_learn() -> None:
    made, batch = stepper(), Batch(torch.ones(4, 3))
    first = learn(made, [batch, batch])
    assert (made.steps, made.hours, made.batch, made.progress) == (1, 1.0, 2, 0.5)
    assert first["loss"] == first["square"] and first["norm"] > 0 and first["rate"] == 1.0
    second = learn(made, [batch])
    assert second["loss"] < first["loss"] and second["rate"] == 0.5
    assert (made.steps, made.hours, made.batch, made.progress) == (2, 1.5, 3, 0.75)


def test_a_gradient_that_is_no_number_changes_no_weight() -> None:
    made = stepper()
    before = [p.detach().clone() for p in made.parameters]
    learn(made, [Batch(torch.full((4, 3), torch.inf))])
    assert all(torch.equal(p, b) for p, b in zip(made.parameters, before, strict=True))
    assert made.steps == 1 and all(p.grad is None for p in made.parameters)


def test_an_update_ends_after_what_belongs_to_it() -> None:
    made = stepper()
    seen: list[tuple[bool, int]] = []
    made.step(
        [Batch(torch.ones(4, 3))],
        lambda batch, _: (batch.features,),
        lambda: seen.append((made.updating, made.steps)),
    )
    assert seen == [(True, 0)] and not made.updating


def test_what_was_saved_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    one, batch = stepper(), Batch(torch.ones(4, 3))
    learn(one, [batch])
    two = stepper()
    two.objective.load_state_dict(one.objective.state_dict())
    two.load(copy.deepcopy(one.state()))
    assert "going on from step 1, 0.5 h" in capsys.readouterr().err
    assert learn(one, [batch]) == learn(two, [batch])
    assert all(torch.equal(a, b) for a, b in zip(one.parameters, two.parameters, strict=True))

"""One step of a training: learning rates, gradients, update, counters; and what of it must be saved."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from asr.training.loop import backward, make_optimizers, set_rates, step_seed, total_seconds

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """`muon_rate`: learning rate of the blocks' matrices, `adam_rate`: of everything else. `clip`: longest
    gradient. `seed`: of weights, batches and masks."""

    muon_rate: float = 0.02
    adam_rate: float = 1.5e-3
    warmup_steps: int = 200
    clip: float = 5.0
    seed: int = 1


class Stepper:
    """Optimisers and counters of a training that ends after `hours_in_all` of audio.

    `hours` of audio have passed, in `steps`; `batch`: how many of epoch `epoch` all processes have had.
    `updating`: between the first weight that a step changes and its counters, when nothing may be saved.
    """

    def __init__(
        self,
        objective: nn.Module,
        blocks: nn.Module,
        accelerator: Accelerator,
        config: StepConfig,
        hours_in_all: float,
    ) -> None:
        """`objective`: prepared by the accelerator, with `blocks` in it."""
        self.objective, self.accelerator, self.config = objective, accelerator, config
        self.hours_in_all = hours_in_all
        self.parameters = list(objective.parameters())
        self.optimizers = make_optimizers(blocks, self.parameters, config.muon_rate, config.adam_rate)
        self.steps = self.epoch = self.batch = 0
        self.hours = 0.0
        self.updating = False

    @property
    def progress(self) -> float:
        """Share of the training that is done, 0 to 1."""
        return min(1.0, self.hours / self.hours_in_all)

    def step(
        self,
        batches: Sequence[Any],
        arguments: Callable[[Any, np.random.Generator], tuple[Any, ...]],
        after_update: Callable[[], None] = lambda: None,
    ) -> dict[str, float]:
        """Learn from the batches together; the mean losses, length of the gradient and factor of the rates.

        `arguments`: what the objective takes for a batch that is on the device; the random numbers are the
        step's own. `after_update` belongs to the update.
        """
        config, accelerator = self.config, self.accelerator
        rates = (config.muon_rate, config.adam_rate)
        factor = set_rates(self.optimizers, rates, self.steps, config.warmup_steps, self.progress)
        rng = step_seed(config.seed, self.steps, accelerator)
        given = [arguments(batch.to(accelerator.device), rng) for batch in batches]
        losses = backward(accelerator, self.objective, given)
        norm = nn.utils.clip_grad_norm_(self.parameters, config.clip)
        seconds = total_seconds(accelerator, batches)
        self.updating = True
        if torch.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        after_update()
        self.steps, self.hours = self.steps + 1, self.hours + seconds / 3600
        self.batch += len(batches) * accelerator.num_processes
        self.updating = False
        return losses | {"norm": norm.item(), "rate": factor}

    def state(self) -> dict[str, Any]:
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "counters": (self.steps, self.epoch, self.batch, self.hours),
        }

    def load(self, state: dict[str, Any]) -> None:
        """What `state` gave, of a training of the same network."""
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.steps, self.epoch, self.batch, self.hours = state["counters"]
        if self.accelerator.is_main_process:
            print(f"going on from step {self.steps}, {self.hours:.1f} h", file=sys.stderr)

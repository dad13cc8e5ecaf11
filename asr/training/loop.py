"""What the training recipes share: optimisers and their schedule, the loop, saving, and where a run
stands."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

_REPORT_EVERY = 50  # steps


class Source(Protocol):
    """Batches of an epoch, after the first `skip`."""

    def epoch(self, number: int, skip: int = 0) -> Iterator[Any]: ...


class Run(Protocol):
    """A training: all that it needs to go on is in it. `updating`: between the first weight that a step
    changes and its counters."""

    hours: float
    epoch: int
    batch: int
    steps: int
    updating: bool

    def step(self, batch: Any) -> dict[str, float]: ...
    def report(self, losses: dict[str, float]) -> None: ...
    def save(self) -> None: ...


def train(
    run: Run,
    source: Source,
    hours: float,
    save_every_s: float,
    report_every: int = _REPORT_EVERY,
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Until `hours` of audio have passed; saves now and then, at the end, and on Ctrl-C.

    Raises SystemExit (130) after Ctrl-C, when it has said how to go on.
    """
    try:
        saved = time.monotonic()
        while run.hours < hours:
            for batch in source.epoch(run.epoch, skip=run.batch):
                losses = run.step(batch)
                if run.steps % report_every == 0:
                    run.report(losses)
                if time.monotonic() - saved > save_every_s:
                    run.save()
                    saved = time.monotonic()
                after_step()
                if run.hours >= hours:
                    break
            else:
                run.epoch, run.batch = run.epoch + 1, 0
    except KeyboardInterrupt:
        if not run.updating:  # else some weights are new and some are old: the last save holds
            run.save()
        print(f"interrupted after {run.hours:.2f} h: the same command goes on from there", file=sys.stderr)
        raise SystemExit(130) from None
    run.save()


def make_optimizers(
    blocks: nn.Module, parameters: Iterable[nn.Parameter], muon_rate: float, adam_rate: float
) -> list[Optimizer]:
    """Muon (Jordan et al. 2024) on the matrices of `blocks`, AdamW on the rest of `parameters`."""
    matrices = [p for p in blocks.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    rest = [p for p in parameters if id(p) not in inside]
    # Weight decay is small: the learning rate falls to zero and the data are few.
    return [
        torch.optim.Muon(matrices, lr=muon_rate, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=adam_rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def set_rates(
    optimizers: list[Optimizer], rates: tuple[float, float], steps: int, warmup_steps: int, progress: float
) -> float:
    """Linear warm-up, then linear decay over `progress` (0 to 1); returns the factor on `rates`."""
    factor = min(1.0, (steps + 1) / warmup_steps) * max(1e-3, 1.0 - progress)
    for optimizer, rate in zip(optimizers, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
    return factor


class Pace:
    """How fast a run goes, counted from where it began or went on."""

    def __init__(self, hours: float) -> None:
        self._began, self._hours = time.monotonic(), hours

    def line(self, steps: int, hours: float, total: float, losses: dict[str, float]) -> str:
        speed = (hours - self._hours) * 3600 / max(time.monotonic() - self._began, 1e-9)
        left_min = (total - hours) / max(speed, 1e-9) * 60
        values = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        return (
            f"step {steps}  {hours:.1f} of {total:.0f} h  {values}  {speed:.0f} h/h  {left_min:.0f} min left"
        )


def save_state(state: dict[str, Any], path: Path) -> None:
    """Whole or not at all: a crash while writing leaves the file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)

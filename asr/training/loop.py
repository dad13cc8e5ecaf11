"""What the training recipes share: processes and devices, optimisers and their schedule, the loop, saving."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from asr.model.checkpoint import save_model
from asr.model.encoder import PhoneModel
from asr.phones import PhoneSet
from asr.training.muon import make_muon

if TYPE_CHECKING:
    from accelerate import Accelerator

_REPORT_EVERY = 20  # steps


class Source(Protocol):
    """Batches of an epoch, after the first `skip`: those of one of several processes, which all get the same
    number. `skip` counts the batches of all processes."""

    def epoch(self, number: int, skip: int = 0, process: int = 0, processes: int = 1) -> Iterator[Any]: ...


class Counters(Protocol):
    """Of a `Stepper`."""

    hours: float
    epoch: int
    batch: int
    steps: int
    updating: bool


class Run(Protocol):
    """A training: all that it needs to go on is in it."""

    accelerator: Accelerator

    @property
    def stepper(self) -> Counters: ...
    def step(self, batches: list[Any]) -> dict[str, float]: ...
    def report(self, losses: dict[str, float]) -> None: ...
    def save(self) -> None: ...


def make_accelerator() -> Accelerator:
    """This process among those that `accelerate launch` started, and its device: a CUDA GPU where there is
    one, else the processor. Raises ValueError where accelerate is not installed."""
    try:
        from accelerate import Accelerator
    except ImportError:
        raise ValueError("training needs accelerate: pip install accelerate") from None
    # The recipes ask for bf16 themselves, where it does no harm.
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")


def end_together(accelerator: Accelerator) -> None:
    """Who is done first waits: a process that is torn down while the first one still saves takes it along."""
    accelerator.wait_for_everyone()
    accelerator.end_training()


def train(
    run: Run,
    source: Source,
    hours: float,
    save_every_s: float,
    report_every: int = _REPORT_EVERY,
    accumulate: int = 1,
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Until `hours` of audio have passed, in steps of `accumulate` batches of each process. Saves now and
    then, at the end, and on Ctrl-C; reports, saving and `after_step` are the first process's.

    An error that ends it is raised after a line that says how to go on. Raises SystemExit (130) after Ctrl-C.
    """
    process, processes = run.accelerator.process_index, run.accelerator.num_processes
    at = run.stepper
    try:
        saved = time.monotonic()
        while at.hours < hours:
            batches = source.epoch(at.epoch, at.batch, process, processes)
            while group := list(islice(batches, accumulate)):
                losses = run.step(group)
                done = at.hours >= hours
                if process == 0:
                    if at.steps % report_every == 0 or done:
                        run.report(losses)
                    if time.monotonic() - saved > save_every_s:
                        run.save()
                        saved = time.monotonic()
                    after_step()
                if done:
                    break
            else:
                at.epoch, at.batch = at.epoch + 1, 0
        if process == 0:
            run.save()
    except KeyboardInterrupt:
        if process == 0:
            _save_after_interrupt(run)
        raise SystemExit(130) from None
    except Exception:
        if process == 0:
            where = f"the last save, at most {save_every_s:.0f} s before"
            print(f"failed after {at.hours:.2f} h: the same command goes on from {where}", file=sys.stderr)
        raise


def _save_after_interrupt(run: Run) -> None:
    where = "the last save"
    if not run.stepper.updating:  # else some weights are new and some are old
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would cut it short
        run.save()
        signal.signal(signal.SIGINT, before)
        where = "there"
    print(
        f"interrupted after {run.stepper.hours:.2f} h: the same command goes on from {where}", file=sys.stderr
    )


def share_of(order: np.ndarray, skip: int, process: int, processes: int) -> np.ndarray:
    """The part of one process of an epoch's batches after the first `skip`. All get the same number: where
    they do not come out even, some come twice."""
    even = np.resize(order, -(-len(order) // processes) * processes)
    return even[skip // processes * processes + process :: processes]


def make_optimizers(
    blocks: nn.Module, parameters: Iterable[nn.Parameter], muon_rate: float, adam_rate: float
) -> list[Optimizer]:
    """Muon (Jordan et al. 2024) on the matrices of `blocks`, AdamW on the rest of `parameters`."""
    matrices = [p for p in blocks.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    rest = [p for p in parameters if id(p) not in inside]
    # Weight decay is small: the learning rate falls to zero and the data are few.
    return [
        make_muon(matrices, muon_rate),
        torch.optim.AdamW(rest, lr=adam_rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def set_rates(
    optimizers: list[Optimizer], rates: tuple[float, float], steps: int, warmup_steps: int, progress: float
) -> float:
    """Linear warm-up, over a tenth of the training at most, and linear decay over `progress` (0 to 1);
    returns the factor on `rates`."""
    warm = max((steps + 1) / warmup_steps, 10 * progress)
    factor = min(1.0, warm) * max(1e-3, 1.0 - progress)
    for optimizer, rate in zip(optimizers, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
    return factor


def step_seed(seed: int, steps: int, accelerator: Accelerator) -> np.random.Generator:
    """Random numbers that depend on the step and the process alone, so that a run can go on exactly: numpy's,
    and torch's from here on."""
    rng = np.random.default_rng([seed, steps, accelerator.process_index])
    torch.manual_seed(int(rng.integers(2**31)))
    return rng


def backward(
    accelerator: Accelerator, objective: nn.Module, batches: Sequence[tuple[Any, ...]]
) -> dict[str, float]:
    """Gradients of the mean loss over the batches of all processes.

    `objective`, prepared by the accelerator, takes each batch's arguments and gives a loss and its parts by
    name. Returns their means, `loss` among them.
    """
    sums: dict[str, Tensor] = {}
    for i, arguments in enumerate(batches, 1):
        # Processes exchange their gradients once a step.
        with nullcontext() if i == len(batches) else accelerator.no_sync(objective):
            loss, parts = objective(*arguments)
            accelerator.backward(loss / len(batches))
        for name, value in {"loss": loss, **parts}.items():
            sums[name] = sums.get(name, torch.zeros_like(loss)) + value.detach() / len(batches)
    means: Tensor = accelerator.reduce(torch.stack(list(sums.values())), "mean")
    return dict(zip(sums, means.tolist(), strict=True))


def total_seconds(accelerator: Accelerator, batches: Sequence[Any]) -> float:
    """Of audio in a step's batches, of all processes."""
    own = torch.tensor(sum(b.seconds for b in batches), dtype=torch.float64, device=accelerator.device)
    total: Tensor = accelerator.reduce(own, "sum")
    return total.item()


class Pace:
    """How fast a run goes, counted from where it began or went on."""

    def __init__(self, hours: float) -> None:
        self._began, self._hours = time.monotonic(), hours

    def line(self, steps: int, hours: float, total: float, values: dict[str, float]) -> str:
        """For example "step 50  1.6 of 400 h  loss 2.310  0.0301 h/s  221 min left": hours are of audio."""
        speed = (hours - self._hours) / max(time.monotonic() - self._began, 1e-9)
        left_min = max(total - hours, 0) / max(speed, 1e-9) / 60
        shown = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        return f"step {steps}  {hours:.4g} of {total:g} h  {shown}  {speed:.3g} h/s  {left_min:.0f} min left"


def save_state(state: dict[str, Any], path: Path) -> None:
    """Whole or not at all: a crash while writing leaves the file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def replace_model(
    folder: Path, network: PhoneModel, phones: PhoneSet, dtype: torch.dtype = torch.float16
) -> None:
    """As `save_model`, but who reads the folder meanwhile, or after a crash, finds every file whole."""
    replace_files(folder, lambda new: save_model(new, network, phones, dtype))


def replace_files(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder, and put its files in place of those of `folder`."""
    new = folder.with_name(folder.name + ".new")
    write(new)
    folder.mkdir(parents=True, exist_ok=True)
    for file in new.iterdir():
        os.replace(file, folder / file.name)
    new.rmdir()

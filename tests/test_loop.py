"""The loop that the training recipes share."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from asr.model.checkpoint import load_network
from asr.model.encoder import EncoderConfig, PhoneModel
from asr.phones import PhoneSet
from asr.training.loop import (
    Pace,
    backward,
    make_accelerator,
    make_optimizers,
    replace_model,
    set_rates,
    share_of,
    step_seed,
    train,
)


class Counted:
    """A run that writes down what it is given; each batch is an hour."""

    def __init__(self, processes: int = 1) -> None:
        self.accelerator: Any = SimpleNamespace(process_index=0, num_processes=processes)
        self.stepper: Any = SimpleNamespace(hours=0.0, steps=0, epoch=0, batch=0, updating=False)
        self.seen: list[list[tuple[int, int]]] = []
        self.saves = self.reports = 0

    def step(self, batches: list[tuple[int, int]]) -> dict[str, float]:
        self.seen.append(batches)
        self.stepper.steps += 1
        self.stepper.hours += len(batches)
        self.stepper.batch += len(batches)
        return {}

    def report(self, losses: dict[str, float]) -> None:
        self.reports += 1

    def save(self) -> None:
        self.saves += 1


class Five:
    """Five batches an epoch."""

    def epoch(
        self, number: int, skip: int = 0, process: int = 0, processes: int = 1
    ) -> Iterator[tuple[int, int]]:
        return ((number, int(i)) for i in share_of(np.arange(5), skip, process, processes))


def test_steps_of_several_batches_stay_within_an_epoch() -> None:
    run = Counted()
    train(run, Five(), hours=8, save_every_s=1e9, accumulate=2)
    assert run.seen == [[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4)], [(1, 0), (1, 1)], [(1, 2), (1, 3)]]
    assert (run.stepper.epoch, run.stepper.batch, run.stepper.hours) == (1, 4, 9)
    assert (run.saves, run.reports) == (1, 1)
    train(run, Five(), hours=11, save_every_s=0, accumulate=2)  # goes on where it stood
    assert run.seen[5:] == [[(1, 4)], [(2, 0), (2, 1)]]
    assert run.saves == 1 + 2 + 1


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_processes_share_an_epoch(processes: int) -> None:
    order = np.random.default_rng(0).permutation(5)
    shares = [share_of(order, 0, process, processes).tolist() for process in range(processes)]
    assert len({len(share) for share in shares}) == 1
    together = [k for step in zip(*shares, strict=True) for k in step]
    assert together[:5] == order.tolist()  # the first five are the epoch, in its order
    assert len(together) < 5 + processes
    for process, share in enumerate(shares):
        assert share_of(order, processes, process, processes).tolist() == share[1:]


def test_gradients_are_those_of_the_mean_loss() -> None:
    torch.manual_seed(0)

    class Squares(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:  # type: ignore[override]
            loss = super().forward(x).square().mean()
            return loss, {"twice": 2 * loss}

    objective = Squares(3, 2)
    batches = [(torch.randn(4, 3),), (torch.randn(4, 3),)]
    means = backward(make_accelerator(), objective, batches)
    found = objective.weight.grad.clone()
    objective.zero_grad()
    loss = sum(objective(x)[0] for (x,) in batches) / 2
    loss.backward()
    torch.testing.assert_close(found, objective.weight.grad)
    assert means == {"loss": pytest.approx(loss.item()), "twice": pytest.approx(2 * loss.item())}


def test_random_numbers_depend_on_step_and_process_alone() -> None:
    def draw(steps: int, process: int) -> tuple[float, float]:
        place: Any = SimpleNamespace(process_index=process)
        return step_seed(3, steps, place).random(), torch.rand(()).item()

    assert draw(5, 1) == draw(5, 1)
    assert len({draw(5, 0), draw(5, 1), draw(6, 0)}) == 3


def test_line_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 150.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    line = Pace(10.0).line(7, 12.0, 15.0, {"loss": 1.25, "PER": 0.5})
    # 2 h in 50 s, 3 h to go.
    assert line == "step 7  12 of 15 h  loss 1.250  PER 0.500  0.04 h/s  1 min left"


def test_a_model_is_replaced_file_by_file(tmp_path: Path) -> None:
    config = EncoderConfig(dim=8, bottleneck=4, dilations=(1,), statistics_after=())
    phones = PhoneSet(("<blk>", "p", "t"))
    for seed in range(2):
        torch.manual_seed(seed)
        network = PhoneModel(config, len(phones))
        replace_model(tmp_path / "model", network, phones, torch.float32)
        (tmp_path / "model" / "notes.txt").touch()
    assert torch.equal(load_network(tmp_path / "model")[0].ctc.weight, network.ctc.weight)
    assert (tmp_path / "model" / "notes.txt").exists() and not (tmp_path / "model.new").exists()


@pytest.mark.parametrize(
    ("steps", "progress", "factor"),
    [
        (0, 0.0, 1 / 200),  # warming up by steps
        (9, 0.05, 0.5 * 0.95),  # a short training by a tenth of its length
        (199, 0.02, 0.98),
        (5_000, 0.75, 0.25),
        (9_000, 1.0, 1e-3),
    ],
)
def test_rates(steps: int, progress: float, factor: float) -> None:
    optimizers = make_optimizers(torch.nn.Linear(2, 2), [torch.nn.Parameter(torch.zeros(3))], 1.0, 1.0)
    assert set_rates(optimizers, (0.02, 0.001), steps, 200, progress) == pytest.approx(factor)
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    assert rates == [pytest.approx(0.02 * factor), pytest.approx(0.001 * factor)]


def test_without_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ValueError, match="training needs accelerate: pip install accelerate"):
        make_accelerator()

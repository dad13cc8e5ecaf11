"""What a training writes about itself."""

import json
import sys
from pathlib import Path

import pytest

from asr.training.journal import Journal, mean_rate


def test_lines_after_the_last_save_are_written_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    for steps in (10, 20, 30):
        journal.add_losses(steps, steps / 100, {"loss": 1 / steps})
        journal.add_rates(steps, steps / 100, {"a": 0.5, "b": 0.1 * steps})
    with (tmp_path / "losses.jsonl").open("a") as file:
        file.write('{"steps": 40, "ho')  # a crash amid a line

    again = Journal(tmp_path, 20)
    assert (again.hours_judged, again.per) == (0.2, pytest.approx((0.5 + 2.0) / 2))
    again.add_losses(30, 0.3, {"loss": 7.0})
    again.add_rates(30, 0.3, {"a": 0.25, "b": 0.75})
    losses = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert [(line["steps"], line["loss"]) for line in losses] == [(10, 0.1), (20, 0.05), (30, 7.0)]
    rates = [json.loads(line) for line in (tmp_path / "judged.jsonl").read_text().splitlines()]
    assert [line["per"]["a"] for line in rates] == [0.5, 0.5, 0.25]
    assert rates[2] == {"hours": 0.3, "steps": 30, "per": {"a": 0.25, "b": 0.75}}


def test_mean_of_sets() -> None:
    assert mean_rate({"large": 0.1, "small": 0.3}) == pytest.approx(0.2)
    assert Journal(Path("nowhere"), 0).per is None


def test_without_tensorboard_and_matplotlib_each_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("torch.utils.tensorboard", "tensorboard", "matplotlib.figure", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    journal = Journal(tmp_path, 0)
    for steps in (1, 2):
        journal.add_losses(steps, 0.1, {"loss": 1.0})
        journal.add_rates(steps, 0.1, {"a": 0.5})
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("no ")]
    assert told == ["no events: pip install tensorboard", "no curves.png: pip install matplotlib"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["judged.jsonl", "losses.jsonl"]


def test_tensorboard_shows_losses_and_rates(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    journal = Journal(tmp_path, 0)
    journal.add_losses(50, 1.0, {"loss": 3.0, "ctc": 2.5})
    journal.add_losses(100, 2.0, {"loss": 1.0, "ctc": 0.5})
    journal.add_rates(100, 2.0, {"set/dev": 0.25, "other/dev": 0.75})
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(50, 3.0), (100, 1.0)]
    assert [(e.step, e.value) for e in events.Scalars("per/mean")] == [(100, 0.5)]
    assert events.Scalars("per/set/dev")[0].value == 0.25


def test_curves_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    journal = Journal(tmp_path, 0)
    for steps in range(1, 6):
        journal.add_losses(steps, steps / 2, {"loss": 1 / steps, "norm": 50.0})
    journal.draw()
    without = imread(tmp_path / "curves.png")
    journal.add_rates(5, 2.5, {"dev": 0.4})
    with_rates = imread(tmp_path / "curves.png")
    assert (without[..., :3].max(2) - without[..., :3].min(2) > 0.2).any()  # a coloured curve
    # The losses stay at the left, the rates are beside them.
    height, width = without.shape[:2]
    assert with_rates.shape[:2] == (height, 2 * width)
    right = with_rates[:, width:, :3]
    assert (right.max(2) - right.min(2) > 0.2).any()

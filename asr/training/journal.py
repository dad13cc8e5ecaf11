"""What a training tells of itself, in its folder: numbers, TensorBoard events and a picture of the curves."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LOSSES, _JUDGED = "losses.jsonl", "judged.jsonl"
_NOT_DRAWN = ("steps", "hours", "norm", "rate")  # on other scales than losses


class Journal:
    """`losses.jsonl` and `judged.jsonl`, a line each time; `events/` for TensorBoard; `curves.png`. The last
    two only where tensorboard and matplotlib are installed."""

    def __init__(self, folder: Path, steps: int) -> None:
        """`steps`: how many the run has behind it. Lines of later ones are of a run that crashed after its
        last save, and will be written again."""
        self.folder, self._steps = folder, steps
        self.losses = _lines_until(folder / _LOSSES, steps)
        self.rates = _lines_until(folder / _JUDGED, steps)
        self._begun: set[str] = set()
        self._events: Any = None
        self._missing: set[str] = set()

    @property
    def hours_judged(self) -> float:
        """Of audio, when the development sets were last judged."""
        return self.rates[-1]["hours"] if self.rates else 0.0

    @property
    def per(self) -> float | None:
        """Mean phone error rate of the development sets when they were last judged."""
        return mean_rate(self.rates[-1]["per"]) if self.rates else None

    def add_losses(self, steps: int, hours: float, losses: Mapping[str, float]) -> None:
        line = {"steps": steps, "hours": round(hours, 3)} | {k: round(v, 4) for k, v in losses.items()}
        self._append(_LOSSES, self.losses, line)
        self._add_events(steps, {f"train/{name}": value for name, value in losses.items()})

    def add_rates(self, steps: int, hours: float, rates: Mapping[str, float]) -> None:
        """Phone error rates by set. Draws the curves anew."""
        line = {"hours": round(hours, 3), "steps": steps, "per": {k: round(v, 4) for k, v in rates.items()}}
        print(json.dumps(line), file=sys.stderr, flush=True)
        self._append(_JUDGED, self.rates, line)
        self._add_events(steps, {f"per/{name}": rate for name, rate in [*rates.items(), ("mean", self.per)]})
        self.draw()

    def _append(self, name: str, lines: list[dict[str, Any]], line: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        lines.append(line)
        if name in self._begun:
            with (self.folder / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        else:  # without the lines that were left out
            temporary = self.folder / f"{name}.tmp"
            temporary.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
            os.replace(temporary, self.folder / name)
            self._begun.add(name)

    def _add_events(self, steps: int, values: Mapping[str, float | None]) -> None:
        if self._events is None and "tensorboard" not in self._missing:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self._tell_missing("tensorboard", "events")
                return
            self._events = SummaryWriter(str(self.folder / "events"), purge_step=self._steps + 1)
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, steps)
            self._events.flush()

    def draw(self) -> None:
        """`curves.png`: losses, and phone error rates if there are any, over the hours of audio."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            self._tell_missing("matplotlib", "curves.png")
            return
        curves = [("loss", self.losses, [n for n in _names(self.losses) if n not in _NOT_DRAWN])]
        if self.rates:
            flat = [{"hours": line["hours"]} | line["per"] for line in self.rates]
            curves.append(("phone error rate", flat, [n for n in _names(flat) if n != "hours"]))
        figure = Figure(figsize=(5 * len(curves), 4), layout="constrained")
        panels = figure.subplots(1, len(curves), squeeze=False)[0]
        for axes, (title, lines, names) in zip(panels, curves, strict=True):
            for name in names:
                hours = [line["hours"] for line in lines]
                axes.plot(hours, [line.get(name, math.nan) for line in lines], marker=".", label=name)
            axes.set(title=title, xlabel="hours of audio")
            axes.grid(alpha=0.3)
            if names:
                axes.legend(fontsize="small")
        self.folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.folder / "curves.png", dpi=120)

    def _tell_missing(self, package: str, what: str) -> None:
        if package not in self._missing:
            print(f"no {what}: pip install {package}", file=sys.stderr)
        self._missing.add(package)


def _names(lines: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for line in lines for name in line))


def mean_rate(rates: Mapping[str, float]) -> float:
    """Of sets of any size, each counts as much."""
    return sum(rates.values()) / max(len(rates), 1)


def _lines_until(path: Path, steps: int) -> list[dict[str, Any]]:
    """The lines of a file of steps up to `steps`, without one that a crash left unfinished."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if line["steps"] <= steps:
            lines.append(line)
    return lines

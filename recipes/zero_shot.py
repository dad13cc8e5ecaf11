"""How well words are heard that were never learnt, once the lexicon has them, and what that costs the others.

    python recipes/zero_shot.py --data ~/phonebook-data --work work/zero_shot

Words of the development recordings that the acoustic model never heard labelled are taken out of the lexicon
and out of the language model's texts, half of them at a time, and added again: guessed from the spelling,
with the lexicon's pronunciations, and with like=. Beside them stand 0 to 10,000 names that nobody says.
flashlight-text (its lexicon made longer) and pyctcdecode (hot words; --pyctcdecode PYTHON that has it) decode
the same posteriors. Posteriors and language models are made once and kept in --work: ten minutes of a core,
3 GB of memory. Rows are kept in --json: --again measures an engine's anew.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from zero_shot_data import Fold, Task, prepare, with_likes
from zero_shot_engines import (
    Hear,
    every,
    load_flashlight_with,
    load_phonebook,
    load_pyctcdecode,
    load_shipped,
)
from zero_shot_task import Counts, count

from asr.errors import one_line_errors
from asr.lexicon import Entry
from asr.metrics import Errors

ENGINES = ("phonebook", "flashlight", "pyctcdecode")
DISTRACTORS = (0, 100, 1_000, 10_000)


@dataclass(frozen=True, kw_only=True)
class Config:
    data: Path
    work: Path
    names: Path | None = None  # distractors, one a line; else they are invented
    engines: tuple[str, ...] = ENGINES[:2]
    pyctcdecode: Path | None = None
    folds: int = 2  # how many of the two are measured
    step: int = 1  # each so many-th utterance
    seed: int = 0
    again: bool = False


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What is added. `words`: "always" known, "held out", or added as "guessed", "given" by the lexicon, or
    guessed and "like" a frequent word."""

    words: str
    distractors: int = 0

    @property
    def text(self) -> str:
        return {
            "always": "never held out",
            "held out": "before the edit",
            "guessed": "after, sounds guessed",
            "given": "after, sounds of the lexicon",
            "like": "after, guessed, with like=",
        }[self.words]

    def added(self, fold: Fold, task: Task) -> tuple[Entry, ...]:
        if self.words in ("always", "held out"):
            return ()
        names = task.distractors[: self.distractors]
        if self.words == "like":
            return with_likes(fold, names, task.frequent)
        return (fold.given if self.words == "given" else fold.guessed) + names


@dataclass(frozen=True, kw_only=True)
class Row:
    """`counts` and `hours` are those of all folds together; `process_s` the time of decoding them."""

    engine: str
    condition: Condition
    step: int
    folds: int
    counts: Counts
    hours: float
    process_s: float
    num_held_out: float  # words, in the mean over folds

    @property
    def false_per_hour(self) -> float:
        return self.counts.false / self.hours

    @property
    def num_added(self) -> float:
        return self.num_held_out + self.condition.distractors if self.counts_as_added else 0.0

    @property
    def counts_as_added(self) -> bool:
        return self.condition.words != "held out"


def conditions(engine: str) -> Iterator[Condition]:
    """Those that are worth their time: the others are slower by far."""
    if engine == "phonebook":
        yield Condition(words="always")
    yield Condition(words="held out")
    for distractors in DISTRACTORS if engine == "phonebook" else DISTRACTORS[::2]:
        yield Condition(words="guessed", distractors=distractors)
    if engine == "phonebook":
        yield Condition(words="given")
        yield Condition(words="like")
        yield Condition(words="like", distractors=1_000)


def measure(engine: str, config: Config, task: Task) -> Iterator[Row]:
    task = dataclasses.replace(task, speech=every(task.speech, config.step))
    folds = task.folds[: config.folds]
    for condition in conditions(engine):
        counts, process_s = Counts(), 0.0
        for fold in folds:
            hear = loaded(engine, condition, fold, config, task)
            start = time.process_time() + children_s()
            heard = hear(condition.added(fold, task))
            process_s += time.process_time() + children_s() - start
            names = {entry.word for entry in task.distractors[: condition.distractors]}
            counts += count(task.speech.references, heard, fold.held_out, fold.known, names)
        row = Row(
            engine=engine,
            condition=condition,
            step=config.step,
            folds=len(folds),
            counts=counts,
            hours=task.speech.hours * len(folds),
            process_s=process_s,
            num_held_out=sum(len(fold.held_out) for fold in folds) / len(folds),
        )
        print(table_row(row), file=sys.stderr)
        yield row


def children_s() -> float:
    spent = os.times()
    return spent.children_user + spent.children_system


_LOADED: dict[tuple[str, int], Hear] = {}


def loaded(engine: str, condition: Condition, fold: Fold, config: Config, task: Task) -> Hear:
    """Each once; `always` is the recogniser as it is shipped."""
    name = "shipped" if condition.words == "always" else engine
    load = {
        "shipped": load_shipped,
        "phonebook": load_phonebook,
        "flashlight": load_flashlight_with,
        "pyctcdecode": partial(load_pyctcdecode, data=config.data, python=config.pyctcdecode),
    }[name]
    if (name, fold.number) not in _LOADED:
        _LOADED[name, fold.number] = load(fold, task.speech, task.phones)
    return _LOADED[name, fold.number]


def table(rows: Sequence[Row]) -> str:
    head = (
        "recogniser", "held-out words", "distractors", "recall %", "known words' %", "precision %",
        "false alarms / h", "/ h / 100 added", "WER % of other words", "where none is said", "RTFx",
    )  # fmt: skip
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *map(table_row, rows)])


def table_row(row: Row) -> str:
    c = row.counts
    cells = [
        row.engine + (f", every {row.step}th utterance" if row.step > 1 else ""),
        row.condition.text,
        f"{row.condition.distractors:,}",
        f"{100 * c.recall:.1f}",
        f"{100 * c.known_recall:.1f}",
        f"{100 * c.precision:.1f}" if c.found else "",
        f"{row.false_per_hour:.1f}",
        f"{100 * row.false_per_hour / row.num_added:.2f}" if row.num_added else "",
        f"{100 * c.others.rate:.2f}",
        f"{100 * c.untouched.rate:.2f}",
        f"{3600 * row.hours / row.process_s:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def plot(rows: Sequence[Row], path: Path) -> None:
    """Recall, false alarms and other words' WER over the number of distractors."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.4))
    titles = ("recall of held-out words %", "false alarms / h", "WER of other words %")
    for engine in dict.fromkeys(r.engine for r in rows):
        after = [r for r in rows if r.engine == engine and r.condition.words == "guessed"]
        before = [r for r in rows if r.engine == engine and r.condition.words == "held out"]
        x = [r.condition.distractors for r in after]
        for axis, value in zip(axes, (recall_percent, false_per_hour, others_percent), strict=True):
            (line,) = axis.plot(x, [value(r) for r in after], "o-", label=f"{engine}, added")
            for r in before:
                axis.axhline(value(r), color=line.get_color(), linestyle=":", label=f"{engine}, before")
    for r in rows:
        if r.condition.words == "always":
            axes[0].axhline(recall_percent(r), color="gray", linestyle="--", label="never held out")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, xlabel="distractors added")
        axis.set_xscale("symlog", linthresh=100)
        axis.set(xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7, loc="lower right")
    figure.savefig(path, dpi=110, bbox_inches="tight")


def recall_percent(row: Row) -> float:
    return 100 * row.counts.recall


def false_per_hour(row: Row) -> float:
    return row.false_per_hour


def others_percent(row: Row) -> float:
    return 100 * row.counts.others.rate


def read_rows(file: Path) -> list[Row]:
    if not file.is_file():
        return []
    return [row_of(values) for values in json.loads(file.read_text(encoding="utf-8"))]


def row_of(values: dict) -> Row:
    counts = dict(values["counts"])
    for name in ("others", "untouched"):
        counts[name] = Errors(**counts[name])
    return Row(**values | {"counts": Counts(**counts), "condition": Condition(**values["condition"])})


def main(config: Config, json_file: Path, plot_file: Path) -> None:
    task = prepare(config.data, config.work, max(DISTRACTORS), config.seed, config.names)
    rows = read_rows(json_file)
    for engine in config.engines:
        if not config.again and any(row.engine == engine for row in rows):
            print(f"{engine}: its rows are in {json_file}: --again measures them anew", file=sys.stderr)
            continue
        rows = [row for row in rows if row.engine != engine]
        for row in measure(engine, config, task):
            rows.append(row)
            values = [dataclasses.asdict(r) for r in rows]
            json_file.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    print(table(rows))
    if importlib.util.find_spec("matplotlib") is None:
        print("no plot: pip install 'phonebook-asr[train]'", file=sys.stderr)
    else:
        plot(rows, plot_file)


def cli(
    data: Annotated[Path, typer.Option(help="the data folder")] = Path(
        os.environ.get("PHONEBOOK_DATA", "../shared/data")
    ),
    work: Annotated[Path, typer.Option(help="folder for what is made once")] = Path("work/zero_shot"),
    names: Annotated[
        Path | None, typer.Option(help="10,000 distractors, one a line; default: invented ones")
    ] = None,
    engine: Annotated[list[str] | None, typer.Option(help=f"of {', '.join(ENGINES)}")] = None,
    pyctcdecode: Annotated[Path | None, typer.Option(help="a Python that has pyctcdecode")] = None,
    folds: Annotated[int, typer.Option(min=1, max=2, help="1: only the first half of the words")] = 2,
    every: Annotated[int, typer.Option(min=1, help="only each so many-th utterance")] = 1,
    seed: Annotated[int, typer.Option(help="of the halves and the invented names")] = Config.seed,
    again: Annotated[bool, typer.Option(help="measure rows anew that are there")] = False,
    json_file: Annotated[Path, typer.Option("--json", help="where rows are kept")] = Path(
        "recipes/zero_shot.json"
    ),
    plot_file: Annotated[Path, typer.Option("--plot", help="the picture")] = Path("recipes/zero_shot.png"),
) -> None:
    """Print a Markdown table of recall, precision, false alarms and the other words' errors."""
    engines = tuple(engine or (*ENGINES[:2], *(ENGINES[2:] if pyctcdecode else ())))
    if unknown := sorted(set(engines) - set(ENGINES)):
        raise typer.BadParameter(f"{unknown[0]}: the engines are {', '.join(ENGINES)}")
    if "pyctcdecode" in engines and pyctcdecode is None:
        raise typer.BadParameter("--engine pyctcdecode needs --pyctcdecode PYTHON")
    if "flashlight" in engines and importlib.util.find_spec("flashlight") is None:
        print("flashlight is not installed and left out: pip install flashlight-text", file=sys.stderr)
        engines = tuple(name for name in engines if name != "flashlight")
    with one_line_errors():
        main(
            Config(
                data=data,
                work=work,
                names=names,
                engines=engines,
                pyctcdecode=pyctcdecode,
                folds=folds,
                step=every,
                seed=seed,
                again=again,
            ),
            json_file,
            plot_file,
        )


if __name__ == "__main__":
    typer.run(cli)

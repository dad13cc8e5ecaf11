"""What is counted as found and as false."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

RECIPES = Path(__file__).parents[1] / "recipes"
sys.path.insert(0, str(RECIPES))
from zero_shot_rooms import DRINKS, Order, count, row  # noqa: E402


class Hears:
    """A decoder that hears the words whose number the first log-prob is."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def decode(self, batch: np.ndarray) -> list[list[SimpleNamespace]]:
        return [[SimpleNamespace(words=tuple(self.texts[int(row[0, 0])].split("|")))] for row in batch]


def order(*drinks: str, pieces: tuple[int, ...]) -> Order:
    log_probs = tuple(np.full((1, 1), piece, np.float32) for piece in pieces)
    return Order(pieces=log_probs, drinks=frozenset(drinks), seconds=1.0)


def test_found_and_false_drinks_are_counted_once_an_order() -> None:
    decoder = Hears("one|new latte|please", "new latte", "new mocha|mocha", "nothing")
    orders = [
        order("latte", pieces=(0, 1)),  # found, twice
        order("mocha", "latte", pieces=(2, 3)),  # one of two found
        order(pieces=(1,)),  # nothing was ordered
        order("espresso", pieces=(3,)),
    ]
    result = count("new", decoder, orders, [f"new {drink}" for drink in DRINKS])  # type: ignore[arg-type]
    assert (result.said, result.found, result.false) == (4, 2, 1)
    assert dict(zip(("mocha", "latte", "espresso"), (result.each[i] for i in (0, 3, 4)), strict=True)) == {
        "mocha": (1, 1), "latte": (2, 1), "espresso": (1, 0),
    }  # fmt: skip
    assert row(result) == "| new | 50.0 | 1 | 1 of 1 | 0 of 0 | 0 of 0 | 1 of 2 | 0 of 1 |"


def test_without_the_orders_it_says_so(tmp_path: Path) -> None:
    command = [sys.executable, RECIPES / "zero_shot_rooms.py", "--data", tmp_path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.strip().endswith("name the folder above it by --data")

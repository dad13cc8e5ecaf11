"""Sentences of numbers as they are said, for language models of texts that write them in figures.

    python recipes/spoken_numbers.py --out work/numbers.tsv
    python recipes/train_lm.py --data ~/phonebook-data --transcripts work/numbers.tsv ...

How a figure is said is not written, so texts lose their sentences with figures, and who dictates a telephone
number, a price or a date meets a model that has never read one. Each line is drawn at random: digits one by
one (an account, a telephone), numbers, prices, dates, times of day, alone or in a few words around them. No
two lines are equal. The file is a manifest, so that the language model recipes give it and the transcripts of
speech their share together.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from num2words import num2words

from asr.errors import one_line_errors
from asr.text import normalize

MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
    "november", "december",
)  # fmt: skip
COINS = (("dollars", "cents"), ("pounds", "pence"), ("euros", "cents"))
# What stands around digits that are said one by one, and around numbers; often nothing.
DIGITS_IN = (
    "{}", "{}", "my number is {}", "call me on {}", "you can reach me at {}", "the code is {}",
    "the account number is {}", "order number {}", "room {}", "flight {}", "the last digits are {}",
    "it ends in {}", "that's {}", "extension {}", "my postcode is {}",
)  # fmt: skip
NUMBERS_IN = (
    "{}", "{}", "page {}", "number {}", "about {} people", "{} miles", "{} years ago", "chapter {}",
    "there are {} of them", "i counted {}", "take {} milligrams", "{} degrees", "it weighs {} pounds",
    "bus {}", "{} metres", "{} kilometres", "at least {}", "between {} and {}", "{} point {} percent",
    "{} percent",
)  # fmt: skip


def digits(dice: random.Random) -> str:
    """Two to ten digits, one by one; a nought is an oh for some, and one digit may stand for two, as a
    double."""
    nought = "oh" if dice.random() < 0.3 else "zero"
    said = [num2words(d) if d else nought for d in (dice.randrange(10) for _ in range(dice.randint(2, 10)))]
    if len(said) > 4 and dice.random() < 0.15:
        at = dice.randrange(len(said))
        said[at] = f"double {said[at]}"
    return " ".join(said)


def number(dice: random.Random) -> str:
    """Of one to six figures, small ones most; with or without the and after hundreds."""
    value = dice.randrange(10 ** dice.choice((1, 2, 2, 2, 3, 3, 4, 5, 6)))
    said = num2words(value)
    return said if dice.random() < 0.5 else said.replace(" and ", " ")


def year(dice: random.Random) -> str:
    return str(num2words(dice.randint(1500, 2039), to="year"))


def price(dice: random.Random) -> str:
    whole, part = dice.choice(COINS)
    amount, rest = num2words(dice.randrange(1, 200)), num2words(dice.choice((10, 20, 25, 50, 75, 95, 99)))
    return dice.choice((f"{amount} {whole}", f"{amount} {whole} and {rest} {part}", f"{amount} {rest}"))


def date(dice: random.Random) -> str:
    day, month = num2words(dice.randint(1, 31), to="ordinal"), dice.choice(MONTHS)
    said = dice.choice((f"the {day} of {month}", f"{month} {day}", f"{month} the {day}"))
    return f"{said} {year(dice)}" if dice.random() < 0.4 else said


def time(dice: random.Random) -> str:
    hour = num2words(dice.randint(1, 12))
    minutes = num2words(dice.choice((5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55)))
    said = dice.choice(
        (f"half past {hour}", f"a quarter to {hour}", f"a quarter past {hour}", f"{hour} o'clock",
         f"{hour} {minutes}", f"{minutes} past {hour}", f"{minutes} to {hour}")
    )  # fmt: skip
    return said + dice.choice(("", "", "", " in the morning", " in the evening", " at night"))


def in_words(dice: random.Random, frames: tuple[str, ...], say: Callable[[random.Random], str]) -> str:
    frame = dice.choice(frames)
    return frame.format(*(say(dice) for _ in range(frame.count("{}"))))


def line(dice: random.Random) -> str:
    """One sentence, in the normal form of the language models."""
    kind = dice.choices(("digits", "number", "price", "date", "time", "year"), (45, 25, 8, 9, 9, 4))[0]
    said = {
        "digits": lambda: in_words(dice, DIGITS_IN, digits),
        "number": lambda: in_words(dice, NUMBERS_IN, number),
        "price": lambda: in_words(dice, ("{}", "it costs {}", "that will be {}", "for {}"), price),
        "date": lambda: in_words(dice, ("{}", "on {}", "it was {}", "until {}", "i was born on {}"), date),
        "time": lambda: in_words(dice, ("{}", "at {}", "it's {}", "see you at {}", "wake me at {}"), time),
        "year": lambda: in_words(dice, ("{}", "in {}", "since {}", "from {} to {}"), year),
    }[kind]()
    return normalize(said)


def main(out: Path, count: int, seed: int) -> None:
    """Raises ValueError where so many different lines are not found."""
    dice, lines = random.Random(seed), dict[str, None]()
    for _ in range(20 * count):
        lines[line(dice)] = None
        if len(lines) == count:
            break
    else:
        raise ValueError(f"no {count:,} different lines: take fewer")
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = (f"{i}\t{text}" for i, text in enumerate(lines))
    out.write_text("\n".join(("path\ttext", *rows)) + "\n", encoding="utf-8")
    print(f"{out}: {count:,} sentences, {sum(len(text.split()) for text in lines):,} words")


def cli(
    out: Annotated[Path, typer.Option(help="manifest to write")],
    count: Annotated[int, typer.Option(min=1, help="sentences")] = 4000,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    """Write sentences of spoken numbers."""
    with one_line_errors():
        main(out, count, seed)


if __name__ == "__main__":
    typer.run(cli)

"""New words said by strangers in real rooms: how many of them are found.

    python recipes/zero_shot_rooms.py --data ~/phonebook-data

Coffee orders, a sentence or two each, of which it is known what was ordered but not in what words
(`barista/slots.tsv`). The drinks are known as they are, then added too, as somebody does who writes them into
his lexicon, then taken out and added as words that no text has; all in the lexicon's pronunciations. A drink
that was ordered and is heard is found; one that is heard in the order of others is false.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import track

from asr import audio, paths
from asr.decoder import Decoder, for_embedded_model
from asr.errors import one_line_errors
from asr.lexicon import Lexicon
from asr.model.checkpoint import AcousticModel, load_model
from asr.model.text_scorer import TextScorer
from asr.text import normalize

DRINKS = ("mocha", "cappuccino", "americano", "latte", "espresso")


@dataclass(frozen=True, kw_only=True)
class Order:
    """`pieces`: log-probs (frames, tokens) of the recording's segments. `drinks`: what was ordered."""

    pieces: tuple[np.ndarray, ...]
    drinks: frozenset[str]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """Of one way to know the drinks: how many were said, found and false, and each drink's own recall."""

    name: str
    said: int
    found: int
    false: int
    each: tuple[tuple[int, int], ...]


def main(data: Path, model: Path | None, lm: Path | None, unknown_scores: Sequence[float]) -> None:
    acoustic = load_model(model, "cpu")
    orders = read_orders(data / "barista", acoustic)
    variants = Lexicon.read([paths.base_lexicon()], acoustic.phones).pronunciations()
    hours = sum(order.seconds for order in orders) / 3600
    print(f"{len(orders)} orders, {hours:.2f} h\n")
    print("| the drinks are | recall % | false | " + " | ".join(DRINKS) + " |")
    print("|" + "---|" * (3 + len(DRINKS)))

    # The neural model belongs to the embedded n-gram model.
    rescorer = None if lm else TextScorer.load(paths.neural_lm())

    def decoder(**changes: object) -> Decoder:
        options = for_embedded_model(**changes)
        language_model = lm or paths.language_model()
        return Decoder.load(paths.base_lexicon(), language_model, acoustic.phones, options, rescorer=rescorer)

    print(row(count("in lexicon and language models", decoder(), orders)), flush=True)
    for score in unknown_scores:
        added = decoder(unknown_word_score=score)
        for drink in DRINKS:
            added.add(drink, variants[drink])
        print(row(count(f"there, and added, {score:g}", added, orders)), flush=True)
        new = decoder(unknown_word_score=score)
        # Backwards no text has them, and the neural model cannot tell what they are.
        names = [drink[::-1] for drink in DRINKS]
        for drink, name in zip(DRINKS, names, strict=True):
            new.remove(drink)
            new.add(name, variants[drink])
        print(row(count(f"new, {score:g}", new, orders, names)), flush=True)


def read_orders(folder: Path, acoustic: AcousticModel) -> list[Order]:
    """Raises ValueError where the orders are not there."""
    slots = folder / "slots.tsv"
    if not slots.is_file():
        raise ValueError(f"{slots}: not there: name the folder above it by --data")
    with slots.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    orders = []
    for fields in track(rows, description="listening"):
        waveform = audio.load(folder / fields["path"])
        pieces = []
        for segment in audio.cut(waveform):
            log_probs, lengths = acoustic.log_probs([waveform[segment.start : segment.end]])
            pieces.append(log_probs[0, : int(lengths[0])].float().numpy())
        ordered = normalize(fields["coffeeDrink"] or "").split()
        orders.append(
            Order(
                pieces=tuple(pieces),
                drinks=frozenset(DRINKS) & frozenset(ordered),
                seconds=len(waveform) / audio.SAMPLE_RATE,
            )
        )
    return orders


def count(name: str, decoder: Decoder, orders: Sequence[Order], names: Sequence[str] = DRINKS) -> Row:
    """`names`: what the decoder calls the drinks."""
    heard = []
    for order in orders:
        words = {word for piece in order.pieces for word in decoder.decode(piece[None])[0][0].words}
        heard.append({drink for drink, called in zip(DRINKS, names, strict=True) if called in words})
    pairs = list(zip(orders, heard, strict=True))
    each = tuple(
        (
            sum(drink in order.drinks for order in orders),
            sum(drink in order.drinks & found for order, found in pairs),
        )
        for drink in DRINKS
    )
    return Row(
        name=name,
        said=sum(said for said, _ in each),
        found=sum(found for _, found in each),
        false=sum(len(found - order.drinks) for order, found in pairs),
        each=each,
    )


def row(result: Row) -> str:
    each = " | ".join(f"{found} of {said}" for said, found in result.each)
    return f"| {result.name} | {100 * result.found / max(result.said, 1):.1f} | {result.false} | {each} |"


def cli(
    data: Annotated[Path, typer.Option(help="folder with the orders in barista/")] = Path(
        os.environ.get("PHONEBOOK_DATA", "../shared/data")
    ),
    model: Annotated[Path | None, typer.Option(help="folder of an acoustic model")] = None,
    lm: Annotated[Path | None, typer.Option(help="ARPA language model")] = None,
    unknown_score: Annotated[
        list[float] | None, typer.Option(help="of a word that no text has, natural log")
    ] = None,
) -> None:
    """Print a Markdown table of recall and false alarms."""
    scores = unknown_score or [for_embedded_model().unknown_word_score]
    with one_line_errors():
        main(data, model, lm, scores)


if __name__ == "__main__":
    typer.run(cli)

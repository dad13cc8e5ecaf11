"""What the recipes of language models are asked alike: which texts, and which not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from asr.training.lm_text import FORBIDDEN, texts_of

Data = Annotated[
    Path | None, typer.Option(help="data folder: the texts in text/, less its dev sets' sentences")
]
Texts = Annotated[list[Path] | None, typer.Option(help="a text, one sentence a line, plain, .gz or .xz")]
Exclude = Annotated[list[Path] | None, typer.Option(help="manifest or text that the model must not know")]
Transcripts = Annotated[
    list[Path] | None, typer.Option(help="manifest of speech, whose texts are how people speak here")
]
HeldOutEvery = Annotated[int, typer.Option(min=2, help="hold out one sentence in")]


def texts_and_exclusions(
    data: Path | None, text: Sequence[Path] | None, exclude: Sequence[Path] | None
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The texts to learn from, and the files whose sentences are to be left out. Raises typer.BadParameter
    where there is no text."""
    texts = text or (texts_of(data) if data else [])
    if not texts:
        raise typer.BadParameter("give --data FOLDER or --text FILE")
    return tuple(texts), (*sorted(data.glob(FORBIDDEN) if data else ()), *(exclude or ()))

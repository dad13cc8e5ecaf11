"""Sentences for a language model from articles: text files with paragraphs, as Wikipedia's are in Markdown.

    git clone --depth 1 https://github.com/chinapedia/wikipedia.abstract.en ~/wikipedia
    python recipes/sentences.py --folder ~/wikipedia/Page --out ~/phonebook-data/text/wikipedia.txt.xz

Takes whole sentences alone: no headings, lists and tables, no footnotes, nothing in brackets. Left out are
sentences with figures or Roman numbers in them (how those are said is not written) or with other letters than
English ones beside accents, sentences of fewer than three or more than 45 words, and the second of two that
are equal. One sentence a line, in the normal form of the language models.
"""

from __future__ import annotations

import lzma
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.progress import track

from asr.errors import one_line_errors
from asr.text import normalize

WORDS = (3, 45)
SUFFIXES = (".md", ".txt")

_NOTE = re.compile(r"\[[^\[\]]{0,40}\]")
_BRACKETS = re.compile(r"\s*\([^()]*\)")
_FILE = re.compile(r"\S+\.(?:jpe?g|png|svg|gif|tiff?|ogg|webm)\b", re.IGNORECASE)  # of a picture
_MARKUP = re.compile(r"[*_`]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"”']?\s+(?=[\"“']?[A-Z])")
# After these a full stop does not end a sentence; nor after an initial.
_ABBREVIATION = re.compile(
    r"\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|St|Ste|Sr|Jr|vs|No|Nos|Co|Corp|Inc|Ltd|Prof|Gen|Col|Lt|Capt|Cmdr|Maj|Sgt|Rev|Hon|"
    r"Gov|Sen|Rep|Mt|Ft|vol|Vol|ed|eds|ca|cf|al|op|Dept|Univ|approx|Bros|Messrs|Fr|Adm|pp|fig|Fig|etc)\.$"
)
_ROMAN = re.compile(r"\b[IVX]{2,}\b")
_WHOLE = re.compile(r"[\"“']?[A-Z][A-Za-z ,;:'\"“”‘’.!?&–—-]*[.!?][\"”']?")


def sentences_of(text: str) -> Iterator[str]:
    """The sentences of an article that can be said as they are written, in their normal form."""
    for paragraph in text.splitlines():
        if not paragraph[:1].strip() or not (paragraph[0].isalpha() or paragraph[0] in "\"“'_*["):
            continue  # an empty line, or one of a list or a table
        paragraph = _BRACKETS.sub("", _BRACKETS.sub("", _NOTE.sub("", paragraph)))
        paragraph = _MARKUP.sub("", _FILE.sub("", paragraph))
        for sentence in _cut(" ".join(paragraph.split())):
            plain = unicodedata.normalize("NFKD", sentence)
            plain = "".join(c for c in plain if not unicodedata.combining(c))
            if not _WHOLE.fullmatch(plain) or _ROMAN.search(plain):
                continue
            normal = normalize(plain)
            if WORDS[0] <= len(normal.split()) <= WORDS[1]:
                yield normal


def _cut(paragraph: str) -> Iterator[str]:
    sentence = ""
    for part in _SENTENCE_END.split(paragraph):
        sentence = f"{sentence} {part}" if sentence else part
        if not _ABBREVIATION.search(sentence):
            yield sentence
            sentence = ""
    if sentence:
        yield sentence


@contextmanager
def open_out(out: Path) -> Iterator[TextIO]:
    """A text file to write, compressed if it ends in .xz, that is there when all is in it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(out.name + ".partial")
    try:
        # With the usual preset compressing would take longer than finding the sentences.
        with (
            lzma.open(beside, "wt", encoding="utf-8", preset=3)
            if out.suffix == ".xz"
            else beside.open("w", encoding="utf-8") as file
        ):
            yield file
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)


def main(folder: Path, out: Path) -> None:
    """Raises ValueError where there are no articles with sentences."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    known: set[int] = set()  # hashes: the sentences of a whole Wikipedia would not fit
    num_words = 0
    with open_out(out) as file:
        for path in track(paths, description="articles"):
            for sentence in sentences_of(path.read_text(encoding="utf-8", errors="replace")):
                if (key := hash(sentence)) not in known:
                    known.add(key)
                    num_words += len(sentence.split())
                    file.write(sentence + "\n")
        if not known:
            raise ValueError(
                f"{folder}: no sentences in {len(paths):,} files that end in {' or '.join(SUFFIXES)}"
            )
    print(f"{out}: {len(known):,} sentences, {num_words:,} words of {len(paths):,} articles")


def cli(
    folder: Annotated[Path, typer.Option(help="articles, .md or .txt, in it and below")],
    out: Annotated[Path, typer.Option(help="text file to write; .xz compresses it")],
) -> None:
    """Take the sentences out of articles."""
    with one_line_errors():
        main(folder, out)


if __name__ == "__main__":
    typer.run(cli)

"""Sentences for a language model from books: plain text or Markdown, as Project Gutenberg's are.

    git clone --depth 1 https://github.com/rcdm-uga/Gutenberg_Text ~/gutenberg
    git clone --depth 1 https://github.com/mlschmitt/classic-books-markdown ~/classics
    python recipes/books.py --folder ~/gutenberg --folder ~/classics --without ~/phonebook-data \\
        --without ~/librispeech-test-other.txt --out ~/phonebook-data/text/books.txt.xz

A paragraph ends at an empty line; its sentences are taken as `sentences.py` takes them. What Project
Gutenberg writes before and behind a book is left out, and so are books that are not in English, indented
paragraphs (verse, tables of contents), and the second of two equal sentences of eight words or more: many
books are there in several editions.

A language model that has read the books that its test speech reads from flatters the recogniser. `--without`
names transcripts of such speech: text files, manifests (.tsv), or a data folder, for its train.tsv and
dev.tsv. A book that shares nine words in a row with one of them is left out, whole, in all of its editions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track
from sentences import SUFFIXES, open_out, sentences_of

from asr.errors import one_line_errors
from asr.training.lm_text import FORBIDDEN, Exclusion

READ_ALOUD = 9  # words in a row with a transcript: the book was read
SHORT = 7  # words: "I do not know" is said in every book
ENGLISH = 0.1  # of the words at least are these
_COMMON = frozenset(["the", "and", "of", "to", "in", "that", "was", "he", "his"])

_BEGIN = re.compile(r"^\*\*\* ?START OF (?:THIS|THE) PROJECT GUTENBERG.*$", re.MULTILINE | re.IGNORECASE)
_END = re.compile(r"^(?:\*\*\* ?)?END OF (?:THIS|THE) PROJECT GUTENBERG", re.MULTILINE | re.IGNORECASE)
_EMPTY_LINE = re.compile(r"\n[ \t]*\n")


def paragraphs_of(book: str) -> Iterator[str]:
    """The paragraphs of a book, a line each, without what Project Gutenberg has added."""
    book = book.replace("\r", "")
    if begin := _BEGIN.search(book):
        book = book[begin.end() :]
    if end := _END.search(book):
        book = book[: end.start()]
    for paragraph in _EMPTY_LINE.split(book):
        yield paragraph.strip("\n").replace("\n", " ")


def is_english(words: list[str]) -> bool:
    return sum(word in _COMMON for word in words) > ENGLISH * len(words)


def main(folders: Iterable[Path], without: Iterable[Path], out: Path) -> None:
    """Raises ValueError where there are no books, for a folder without manifests, or as `Exclusion.read`."""
    transcripts = [path for given in without for path in _transcripts(given)]
    aloud = Exclusion.read(transcripts, shared_words=READ_ALOUD)
    paths = sorted(
        path for folder in folders for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file()
    )
    known: set[int] = set()  # hashes
    num_sentences = num_words = num_read = num_foreign = 0
    with open_out(out) as file:
        for path in track(paths, description="books"):
            text = "\n".join(paragraphs_of(path.read_text(encoding="utf-8", errors="replace")))
            book = list(sentences_of(text))
            words = [word for sentence in book for word in sentence.split()]
            if not is_english(words):
                num_foreign += 1
            elif aloud.shares(words):
                num_read += 1
            else:
                for sentence in book:
                    count = sentence.count(" ") + 1
                    if count > SHORT:
                        if (key := hash(sentence)) in known:
                            continue
                        known.add(key)
                    num_words += count
                    num_sentences += 1
                    file.write(sentence + "\n")
        if not num_sentences:
            raise ValueError(f"no sentences in {len(paths):,} files that end in {' or '.join(SUFFIXES)}")
    print(
        f"{out}: {num_sentences:,} sentences, {num_words:,} words of {len(paths):,} books, less {num_read:,} "
        f"that were read aloud and {num_foreign:,} that are not in English"
    )


def _transcripts(given: Path) -> list[Path]:
    if not given.is_dir():
        return [given]
    found = [*sorted(given.glob("*/train.tsv")), *sorted(given.glob(FORBIDDEN))]
    if not found:  # else nothing would be left out, and nobody would notice
        raise ValueError(
            f"{given}: no train.tsv and no dev.tsv in the folders there: name a data folder or a file"
        )
    return found


def cli(
    folder: Annotated[list[Path], typer.Option(help="books, .txt or .md, in it and below")],
    out: Annotated[Path, typer.Option(help="text file to write; .xz compresses it")],
    without: Annotated[
        list[Path] | None,
        typer.Option(help="transcripts of speech read from books: text, .tsv, or a data folder"),
    ] = None,
) -> None:
    """Take the sentences out of books."""
    with one_line_errors():
        main(folder, without or [], out)


if __name__ == "__main__":
    typer.run(cli)

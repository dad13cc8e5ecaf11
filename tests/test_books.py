"""Books become the sentences of a language model; those that test speech reads from do not."""

from __future__ import annotations

import lzma
import subprocess
import sys
from pathlib import Path

RECIPES = Path(__file__).parents[1] / "recipes"
GUTENBERG = """The Project Gutenberg EBook of The Gate

*** START OF THIS PROJECT GUTENBERG EBOOK THE GATE ***

  THE GATE

  CONTENTS of a book that nobody sees

The old man stood in the rain, and _he_ looked at the gate of
the house for a while. "Come in!" said the girl.  He was
in the garden before the rain ended.

*** END OF THIS PROJECT GUTENBERG EBOOK THE GATE ***

This licence is of the publisher and was in the way.
"""
SENTENCES = [
    "the old man stood in the rain and he looked at the gate of the house for a while",
    "come in said the girl",
    "he was in the garden before the rain ended",
]


def run(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        RECIPES / "books.py",
        "--folder",
        folder,
        "--out",
        folder / "books.txt.xz",
        *more,
    ]
    return subprocess.run(command, capture_output=True, text=True)


def written(folder: Path) -> list[str]:
    return lzma.open(folder / "books.txt.xz", "rt").read().splitlines()


def test_sentences_of_books(tmp_path: Path) -> None:
    (tmp_path / "gate.txt").write_text(GUTENBERG)
    (tmp_path / "later.md").write_text(
        "# Title: Later\n\nHe was in the garden before the rain ended. Come in and sit. Come in and sit.\n\n"
        "And the rest of the house was that of his father.\n"
    )
    (tmp_path / "foreign.txt").write_text("Il pleuvait dans le jardin et sur la maison de mon oncle.\n" * 3)
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    wanted = [
        *SENTENCES,
        "come in and sit",
        "come in and sit",
        "and the rest of the house was that of his father",
    ]
    assert written(tmp_path) == wanted
    assert "of 3 books, less 0 that were read aloud and 1 that are not in English" in done.stdout


def test_a_book_that_is_read_aloud_is_left_out_whole(tmp_path: Path) -> None:
    (tmp_path / "gate.txt").write_text(GUTENBERG)
    (tmp_path / "later.txt").write_text("And the rest of the house was that of his father.\n")
    manifests = tmp_path / "data" / "speech"
    manifests.mkdir(parents=True)
    # Nine words in a row, over the end of a sentence.
    speech = "path\tduration\tspeaker\ttext\na.wav\t3\tx\tGATE OF THE HOUSE FOR A WHILE COME IN\n"
    (manifests / "dev.tsv").write_text(speech)
    assert run(tmp_path, "--without", str(manifests.parent)).returncode == 0
    assert written(tmp_path) == ["and the rest of the house was that of his father"]
    (manifests / "dev.tsv").write_text(speech.replace("COME IN", "COME BACK"))
    assert run(tmp_path, "--without", str(manifests / "dev.tsv")).returncode == 0
    assert len(written(tmp_path)) == 4


def test_transcripts_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "gate.txt").write_text(GUTENBERG)
    (tmp_path / "empty").mkdir()
    for wrong, message in (("empty", "no train.tsv and no dev.tsv"), ("none.txt", "none.txt")):
        done = run(tmp_path, "--without", str(tmp_path / wrong))
        assert done.returncode and message in done.stderr and "Traceback" not in done.stderr
        assert not (tmp_path / "books.txt.xz").exists()


def test_no_books(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode and "no sentences in 0 files" in done.stderr
    assert not list(tmp_path.iterdir())

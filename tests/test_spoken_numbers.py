"""Sentences of numbers are what people say, and what the language model recipes read."""

import random
import sys
from pathlib import Path

import pytest

from asr.paths import base_lexicon
from asr.text import normalize
from asr.training.lm_text import Exclusion, lexicon_words, read_transcripts

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))
import spoken_numbers

DIGITS = {"zero", "oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "double"}


def written(path: Path, count: int = 1500, seed: int = 1) -> list[str]:
    spoken_numbers.main(path, count, seed)
    return read_transcripts([path], Exclusion.read([]))


def test_every_line_is_new_and_can_be_recognised(tmp_path: Path) -> None:
    lines = written(tmp_path / "new" / "numbers.tsv")
    assert len(set(lines)) == len(lines) == 1500
    assert all(line == normalize(line) for line in lines)
    assert {word for line in lines for word in line.split()} <= set(lexicon_words(base_lexicon()))
    one_by_one = [line for line in lines if set(line.split()) <= DIGITS and len(line.split()) > 3]
    assert len(one_by_one) > 50 and any("double" in line for line in one_by_one)
    for part in ("hundred", "dollars", "point", "half past", "o'clock", "of may", "twenty first", "nineteen"):
        assert any(part in line for line in lines), part


def test_the_same_seed_writes_the_same(tmp_path: Path) -> None:
    first = written(tmp_path / "a.tsv", 200)
    assert written(tmp_path / "b.tsv", 200) == first != written(tmp_path / "c.tsv", 200, seed=2)


def test_digits_are_as_many_as_were_drawn() -> None:
    for seed in range(300):
        said = spoken_numbers.digits(random.Random(seed)).split()
        assert set(said) <= DIGITS and 2 <= len(said) - said.count("double") <= 10
        assert said[-1] != "double"


def test_more_lines_than_there_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(spoken_numbers, "line", lambda dice: "one")
    with pytest.raises(ValueError, match="no 2 different lines"):
        spoken_numbers.main(tmp_path / "numbers.tsv", 2, 1)
    assert not (tmp_path / "numbers.tsv").exists()

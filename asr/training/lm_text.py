"""Sentences for a language model: read, normalised, with some held out and the forbidden ones left out."""

from __future__ import annotations

import csv
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from asr.text import normalize
from asr.training.lm_tables import open_text

# In a data folder: the texts, and what must not be in a model made of them.
TEXTS = ("text/novels.txt.xz", "text/modern.txt.xz")
FORBIDDEN = "*/dev.tsv"
SHARED_WORDS = 7  # in a row with a forbidden sentence: too many to be chance

_NOT_WORDS = re.compile(r"[^A-Za-z' ]")


def texts_of(data: Path) -> list[Path]:
    """TEXTS of a data folder, whether they are there or not, then the other .txt.xz files beside them."""
    known = [data / name for name in TEXTS]
    return known + [path for path in sorted((data / "text").glob("*.txt.xz")) if path not in known]


class _NormalWords(dict[str, str]):
    """Word -> its normal form, worked out once."""

    def __missing__(self, word: str) -> str:
        self[word] = normal = normalize(word)
        return normal


def read_sentences(path: str | Path) -> Iterator[str]:
    """The normal form of each line of a text file (plain, .gz or .xz), without the empty ones.

    Raises OSError, and ValueError if the file is not UTF-8 text.
    """
    normal = _NormalWords()
    with open_text(path) as file:
        try:
            for line in file:
                line = line.rstrip("\n")
                if _NOT_WORDS.search(line):
                    sentence = normalize(line)
                else:
                    # Letters and apostrophes alone: word by word it is the same, and ten times as fast.
                    sentence = " ".join(filter(None, [normal[word] for word in line.split()]))
                if sentence:
                    yield sentence
        except UnicodeDecodeError:
            raise ValueError(f"{path}: not a text file: it is not UTF-8") from None


def is_held_out(sentence: str, every: int) -> bool:
    """Whether a sentence is for measuring: one in `every` of the different ones, all of its copies alike."""
    return every > 0 and zlib.crc32(sentence.encode()) % every == 0


@dataclass
class Exclusion:
    """Tells the sentences that are in, or share `shared_words` words in a row with, a forbidden one.

    `dropped` counts those that it has told.
    """

    sentences: set[str] = field(default_factory=set)
    runs: set[tuple[str, ...]] = field(default_factory=set)
    shared_words: int = SHARED_WORDS
    dropped: int = 0

    @classmethod
    def read(cls, paths: Iterable[str | Path], shared_words: int = SHARED_WORDS) -> Exclusion:
        """From manifests (.tsv: column `text`) and text files. Raises ValueError for a .tsv without it."""
        exclusion = cls(shared_words=shared_words)
        for path in paths:
            sentences = _manifest_texts(path) if Path(path).suffix == ".tsv" else read_sentences(path)
            for sentence in sentences:
                exclusion.sentences.add(sentence)
                exclusion.runs.update(exclusion._runs(sentence.split()))
        return exclusion

    def __call__(self, sentence: str) -> bool:
        found = sentence in self.sentences or self.shares(sentence.split())
        self.dropped += found
        return found

    def shares(self, words: list[str]) -> bool:
        """Whether a text, of any length, shares so many words in a row with a forbidden sentence."""
        return not self.runs.isdisjoint(self._runs(words))

    def _runs(self, words: list[str]) -> Iterator[tuple[str, ...]]:
        return zip(*(words[i:] for i in range(self.shared_words)), strict=False)


def training_sentences(
    path: Path, held_out_every: int, exclusion: Exclusion, unwanted: frozenset[str] = frozenset()
) -> Iterator[str]:
    """The sentences of a text that are not held out, not excluded, and without any of the unwanted words."""
    for sentence in read_sentences(path):
        if is_held_out(sentence, held_out_every) or exclusion(sentence):
            continue
        if not unwanted or unwanted.isdisjoint(sentence.split()):
            yield sentence


def thinned(sentences: Iterable[str], share: float) -> Iterator[str]:
    """That share, up to 1, of the sentences, evenly."""
    due = 0.0
    for sentence in sentences:
        due += share
        if due >= 1:
            due -= 1
            yield sentence


def count_words(path: Path) -> int:
    """Of a text file (plain, .gz or .xz), as they are written."""
    with open_text(path) as file:
        return sum(len(line.split()) for line in file)


def read_held_out(path: Path, every: int) -> list[str]:
    """The sentences of a text that are for measuring."""
    return [sentence for sentence in read_sentences(path) if is_held_out(sentence, every)]


def _manifest_texts(path: str | Path) -> Iterator[str]:
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if "text" not in (rows.fieldnames or []):
            raise ValueError(f"{path}: a manifest needs a header line with a column 'text'")
        yield from filter(None, (normalize(row["text"] or "") for row in rows))


def read_transcripts(
    manifests: Iterable[Path], exclusion: Exclusion, unwanted: frozenset[str] = frozenset()
) -> list[str]:
    """The different texts of manifests, as `training_sentences`. Raises ValueError for one without texts."""
    texts = {text for path in manifests for text in _manifest_texts(path)}
    return sorted(text for text in texts if not exclusion(text) and unwanted.isdisjoint(text.split()))


def lexicon_words(path: str | Path) -> list[str]:
    """The normalised words of a lexicon file in file order; each word of an entry of several counts alone."""
    words: dict[str, None] = {}
    with open_text(path) as file:
        for line in file:
            word = line.partition("#")[0].partition("\t")[0]
            words.update(dict.fromkeys(normalize(word).split()))
    return list(words)


def frequent_words(texts: Iterable[Iterable[str]], min_count: int = 2) -> list[str]:
    """The words that occur at least so often in the texts, the most frequent first."""
    counts: Counter[str] = Counter()
    for sentences in texts:
        for sentence in sentences:
            counts.update(sentence.split())
    return [word for word, count in counts.most_common() if count >= min_count]

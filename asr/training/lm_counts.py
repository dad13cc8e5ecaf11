"""Count the n-grams of a text of any length: sorted blocks on disk, merged by ranges of first words."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr.training.lm_tables import BOS, EOS, UNK, word_bits


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Different n-grams in the order of their word ids, and how often each occurs.

    `ngrams` int32 (rows, order), `counts` int64 (rows). A sentence is padded with order - 1 <s> and one </s>.
    """

    ngrams: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.counts)


def count_ngrams(
    sentences: Iterable[str], words: dict[str, int], order: int, block_size: int = 1 << 22
) -> Counts:
    """The n-grams of exactly `order` in normalised sentences; words outside `words` count as <unk>.

    Memory holds one block of `block_size` n-grams at a time, then the different n-grams of the whole text.
    """
    bits = word_bits(max(words.values()) + 1)
    with tempfile.TemporaryDirectory() as folder:
        spills: list[tuple[Path, Path]] = []
        for tokens in _token_blocks(sentences, words, order, block_size):
            windows = np.lib.stride_tricks.sliding_window_view(tokens, order)
            counts = sum_equal(windows[windows[:, -1] != BOS], None, bits)[0]
            spills.append(
                (Path(folder) / f"{len(spills)}.ngrams.npy", Path(folder) / f"{len(spills)}.counts.npy")
            )
            np.save(spills[-1][0], counts.ngrams)
            np.save(spills[-1][1], counts.counts)
        return _merge(spills, order, bits, block_size)


def _token_blocks(
    sentences: Iterable[str], words: dict[str, int], order: int, block_size: int
) -> Iterator[np.ndarray]:
    """int32 (tokens): whole padded sentences, about `block_size` tokens at a time."""
    padding = [BOS] * (order - 1)
    tokens: list[int] = []
    get = words.get
    for sentence in sentences:
        tokens += padding
        tokens += [get(word, UNK) for word in sentence.split()]
        tokens.append(EOS)
        if len(tokens) >= block_size:
            yield np.array(tokens, np.int32)
            tokens = []
    # Windows that end in <s> are not counted; these let even an empty rest have one.
    yield np.array([*tokens, *[BOS] * order], np.int32)


def sum_equal(ngrams: np.ndarray, counts: np.ndarray | None, bits: int) -> tuple[Counts, np.ndarray]:
    """Equal rows added up and sorted; also how many rows went into each.

    ngrams: int (rows, order) in any order; counts: int64 (rows), or None for 1 each.
    """
    keys = _sort_keys(ngrams, bits)
    by_key = np.argsort(keys, kind="stable" if len(keys) < 2 else None)
    keys = keys[by_key]
    first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.zeros(0, np.int64)
    rows = np.diff(np.r_[first, len(keys)])
    sums = rows if counts is None else np.add.reduceat(counts[by_key], first) if len(keys) else rows
    return Counts(ngrams=ngrams[by_key[first]], counts=sums.astype(np.int64)), rows


def _sort_keys(ngrams: np.ndarray, bits: int) -> np.ndarray:
    """uint64 (rows): keys in the order of the rows, equal where the rows are.

    Where the next word would not fit into 64 bits, the words so far are replaced by their rank.
    """
    keys = ngrams[:, 0].astype(np.uint64)
    used = bits
    for column in range(1, ngrams.shape[1]):
        if used + bits > 64:
            different, ranks = np.unique(keys, return_inverse=True)
            keys, used = ranks.astype(np.uint64), len(different).bit_length()
            assert used + bits <= 64, "more n-grams than 64-bit keys can tell apart"
        keys = keys << np.uint64(bits) | ngrams[:, column].astype(np.uint64)
        used += bits
    return keys


def _merge(spills: list[tuple[Path, Path]], order: int, bits: int, block_size: int) -> Counts:
    """Merge sorted blocks, at each step the rows of a range of first words from all of them."""
    blocks = [(np.load(ngrams, mmap_mode="r"), np.load(counts, mmap_mode="r")) for ngrams, counts in spills]
    if len(blocks) == 1:
        return Counts(ngrams=np.array(blocks[0][0]), counts=np.array(blocks[0][1]))
    per_word = sum(np.bincount(ngrams[:, 0], minlength=1 << bits) for ngrams, _ in blocks)
    assert isinstance(per_word, np.ndarray)
    ends = np.flatnonzero(np.diff(np.cumsum(per_word) // block_size, append=-1)) + 1
    merged: list[Counts] = []
    begin = 0
    for end in ends.tolist():
        ranges = [slice(*np.searchsorted(ngrams[:, 0], [begin, end])) for ngrams, _ in blocks]
        ngrams = np.concatenate([block[0][part] for block, part in zip(blocks, ranges, strict=True)])
        counts = np.concatenate([block[1][part] for block, part in zip(blocks, ranges, strict=True)])
        merged.append(sum_equal(ngrams, counts, bits)[0])
        begin = end
    return Counts(
        ngrams=np.concatenate([part.ngrams for part in merged]).reshape(-1, order),
        counts=np.concatenate([part.counts for part in merged]),
    )

"""A backoff n-gram model as flat sorted tables, and ARPA files in and out.

An n-gram of order n is a row of table n. Its key is `context row << bits | word id`, where the context row is
that of its first n - 1 words in table n - 1; keys are sorted, so a row is found by bisection and all the
words that follow a context lie together. Probabilities are linear float64: mixing and renormalising add them.
"""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np

UNK, BOS, EOS = 0, 1, 2
SPECIAL_WORDS = ("<unk>", "<s>", "</s>")
_BLOCK = 1 << 17  # rows formatted at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """The n-grams of one order; all arrays have a row for each.

    `keys` int64 sorted; `suffix` int32, the row of the last n - 1 words in table n - 1 (0 for unigrams);
    `prob` P(last word | the others); `backoff` the factor on the shorter context's probabilities where this
    n-gram is the context; `history` how often the n-gram is a context, relative to all words of the text.
    """

    keys: np.ndarray
    suffix: np.ndarray
    prob: np.ndarray
    backoff: np.ndarray
    history: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, kw_only=True, slots=True)
class NgramModel:
    """`words` by id (the first are SPECIAL_WORDS); `tables[n - 1]` holds order n.

    Every n-gram's prefix and suffix of n - 1 words are in the table below. Table 1 has one row a word.
    """

    words: tuple[str, ...]
    tables: tuple[Table, ...]

    @property
    def order(self) -> int:
        return len(self.tables)

    @property
    def bits(self) -> int:
        return word_bits(len(self.words))

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(table) for table in self.tables)

    def contexts(self, order: int) -> np.ndarray:
        """int64 (rows of `order`): the row of each n-gram's context in the table below."""
        return self.tables[order - 1].keys >> self.bits

    def last_words(self, order: int) -> np.ndarray:
        """int64 (rows of `order`): the id of each n-gram's last word."""
        return self.tables[order - 1].keys & ((1 << self.bits) - 1)

    def lower_probs(self, order: int) -> np.ndarray:
        """float64 (rows of `order`): each n-gram's P(last word | its context less the first word)."""
        return self.tables[order - 2].prob[self.tables[order - 1].suffix]


def word_bits(num_words: int) -> int:
    return (num_words - 1).bit_length()


def find_rows(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """int64 (wanted): the row of each wanted key in sorted `keys`; -1 where it is missing."""
    if not len(keys):
        return np.full(len(wanted), -1)
    rows = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[rows] == wanted, rows, -1)


def renormalised(model: NgramModel) -> NgramModel:
    """The model with the backoffs at which the words after every context sum to one.

    backoff(h) = (1 - sum of P(w | h)) / (1 - sum of P(w | shorter h)), both over the w listed after h.
    """
    tables = list(model.tables)
    for order in range(2, model.order + 1):
        contexts = model.contexts(order)
        below = tables[order - 2]
        size = len(below)
        left = 1 - np.bincount(contexts, weights=tables[order - 1].prob, minlength=size)
        lower = 1 - np.bincount(contexts, weights=model.lower_probs(order), minlength=size)
        has_words = np.bincount(contexts, minlength=size) > 0
        safe = has_words & (left > 0) & (lower > 0)
        backoff = np.where(safe, left / np.where(safe, lower, 1.0), np.where(has_words, 1e-10, 1.0))
        tables[order - 2] = Table(
            keys=below.keys, suffix=below.suffix, prob=below.prob, backoff=backoff, history=below.history
        )
    return NgramModel(words=model.words, tables=tuple(tables))


def open_text(path: str | Path, mode: str = "rt") -> IO[str]:
    """A text file, plain or compressed as its name says (.gz, .xz)."""
    kind = Path(path).suffix
    if kind == ".xz":
        return cast(IO[str], lzma.open(path, mode, encoding="utf-8"))
    if kind == ".gz":
        return cast(IO[str], gzip.open(path, mode, encoding="utf-8"))
    return cast(IO[str], open(path, mode, encoding="utf-8"))


def write_arpa(model: NgramModel, path: str | Path, decimals: int = 6) -> None:
    """Write log10 probabilities with so many decimals; a name in .gz or .xz compresses.

    A probability of <s> is not estimated: it is written as 0 and never used, as lmplz does.
    """
    if Path(path).suffix == ".xz":
        # One more bit of context for each letter: a quarter of a percent smaller than the preset alone.
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]
        with lzma.open(path, "wt", encoding="utf-8", filters=filters) as file:
            _write(model, file, decimals)
        return
    with open_text(path, "wt") as file:
        _write(model, file, decimals)


def _write(model: NgramModel, file: IO[str], decimals: int) -> None:
    file.write("\\data\\\n" + "".join(f"ngram {n}={size}\n" for n, size in enumerate(model.sizes, 1)))
    texts: list[str] = [""]
    for order in range(1, model.order + 1):
        table = model.tables[order - 1]
        file.write(f"\n\\{order}-grams:\n")
        log_prob = _log10_text(table.prob, decimals)
        if order == 1:
            log_prob[BOS] = "0"
        log_backoff = _log10_text(table.backoff, decimals) if order < model.order else None
        contexts, lasts = model.contexts(order), model.last_words(order)
        grown: list[str] = []
        for start in range(0, len(table), _BLOCK):
            part = slice(start, start + _BLOCK)
            head = (
                texts[c] + model.words[w]
                for c, w in zip(contexts[part].tolist(), lasts[part].tolist(), strict=True)
            )
            if log_backoff is None:
                file.writelines(f"{p}\t{text}\n" for p, text in zip(log_prob[part], head, strict=True))
                continue
            block = list(head)
            file.writelines(
                f"{p}\t{text}\t{b}\n" if b != "0" else f"{p}\t{text}\n"
                for p, text, b in zip(log_prob[part], block, log_backoff[part], strict=True)
            )
            grown += [text + " " for text in block]
        texts = grown
    file.write("\n\\end\\\n")


def _log10_text(probs: np.ndarray, decimals: int) -> list[str]:
    """log10 with trailing zeros and a zero before the point left out, which strtod and float() read alike."""
    logs = np.log10(np.maximum(probs, 1e-99))
    if decimals > 4:
        return [
            f"{x:.{decimals}f}".rstrip("0").rstrip(".").replace("-0.", "-.") or "0" for x in logs.tolist()
        ]
    scaled = np.rint(logs * 10**decimals).astype(np.int64)
    names = {int(s): _fixed_text(int(s), decimals) for s in np.unique(scaled)}
    return [names[s] for s in scaled.tolist()]


def _fixed_text(scaled: int, decimals: int) -> str:
    text = f"{scaled / 10**decimals:.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-0.", "-.") or "0"


def read_arpa(path: str | Path, words: Sequence[str]) -> NgramModel:
    """Read an ARPA file into tables over the vocabulary `words`; words it does not list share with <unk>.

    Histories are weighted by the chain rule, as no counts are at hand. Raises ValueError for a word outside
    the vocabulary and for an n-gram whose prefix or suffix is not listed.
    """
    ids = {word: i for i, word in enumerate(words)}
    bits = word_bits(len(words))
    tables: list[Table] = []
    order = 0
    rows: list[tuple[int, float, float]] = []  # key, log10 prob, log10 backoff
    suffixes: list[int] = []
    index: list[dict[int, int]] = []  # by order: key -> row

    def close_order() -> None:
        if order:
            tables.append(_sorted_table(rows, suffixes, order, len(words)))
            index.append({key: row for row, key in enumerate(tables[-1].keys.tolist())})
        rows.clear()
        suffixes.clear()

    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if line.startswith("\\"):
                close_order()
                order = int(line[1 : line.index("-")]) if line.rstrip().endswith("-grams:") else 0
                continue
            fields = line.rstrip("\n").split("\t")
            if not order or len(fields) < 2:
                continue
            try:
                gram = [ids[word] for word in fields[1].split(" ")]
                key, suffix = gram[0], 0
                for n, word in enumerate(gram[1:], 1):
                    context = key if n == 1 else index[n - 1][key]
                    key = context << bits | word
                if order > 1:
                    suffix = gram[1]
                    for n, word in enumerate(gram[2:], 1):
                        suffix = index[n][suffix << bits | word]
            except KeyError:
                raise ValueError(f"{path}:{number}: unknown word or unlisted part in {fields[1]!r}") from None
            rows.append((key, float(fields[0]), float(fields[2]) if len(fields) > 2 else 0.0))
            suffixes.append(suffix)
    close_order()
    if not tables:
        raise ValueError(f"{path}: not an ARPA file: it has no \\1-grams: section")
    return with_chained_histories(NgramModel(words=tuple(words), tables=tuple(tables)))


def _sorted_table(
    rows: list[tuple[int, float, float]], suffixes: list[int], order: int, num_words: int
) -> Table:
    keys = np.array([row[0] for row in rows], np.int64)
    prob, backoff = (10 ** np.array([row[i] for row in rows], np.float64) for i in (1, 2))
    if order == 1:
        # <unk> and the words that are not listed are equally unknown: they share its probability.
        unseen = np.setdiff1d(np.arange(num_words), [BOS, *keys[keys != UNK]])
        all_prob, all_backoff = np.ones(num_words), np.ones(num_words)
        all_prob[keys], all_backoff[keys] = prob, backoff
        all_prob[unseen] = prob[keys == UNK].sum() / len(unseen)
        all_prob[BOS] = 0.0
        keys, prob, backoff = np.arange(num_words), all_prob, all_backoff
        suffix = np.zeros(num_words, np.int32)
    else:
        by_key = np.argsort(keys)
        keys, prob, backoff = keys[by_key], prob[by_key], backoff[by_key]
        suffix = np.array(suffixes, np.int32)[by_key]
    return Table(keys=keys, suffix=suffix, prob=prob, backoff=backoff, history=np.zeros(len(keys)))


def with_chained_histories(model: NgramModel) -> NgramModel:
    """The model with P(context) as the product of its own probabilities, P(<s>) being that of </s>."""
    tables: list[Table] = []
    for order in range(1, model.order + 1):
        table = model.tables[order - 1]
        history = table.prob.copy()
        if order == 1:
            history[BOS] = table.prob[EOS]
        else:
            history *= tables[-1].history[model.contexts(order)]
        tables.append(
            Table(
                keys=table.keys, suffix=table.suffix, prob=table.prob, backoff=table.backoff, history=history
            )
        )
    return NgramModel(words=model.words, tables=tuple(tables))

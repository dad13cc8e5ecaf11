"""Words that are in no lexicon: what their phones are likely to be, and how they are written."""

from __future__ import annotations

import numpy as np

from asr.decoder.added import Added
from asr.decoder.options import DecoderOptions
from asr.decoder.vocabulary import Vocabulary
from asr.phones import PhoneSet

_SMOOTHING = 0.5  # added to every count of a phone bigram


def phone_bigram(vocabulary: Vocabulary, options: DecoderOptions, num_tokens: int) -> np.ndarray:
    """float32 (tokens, tokens): weighted log-probability of a phone (column) after a phone (row); row 0 is
    the begin of a word and holds `unknown_score` too, column 0 its end.

    Every pronunciation counts once: a word that is missing is more like the rare ones than like the frequent
    ones.
    """
    counts = np.full((num_tokens, num_tokens), _SMOOTHING)
    tokens, offsets = vocabulary.tokens.astype(np.int64), vocabulary.offsets
    following = np.zeros(len(tokens) + 1, np.int64)
    following[:-1] = tokens
    first = np.zeros(len(tokens) + 1, bool)
    first[offsets[:-1]] = True
    np.add.at(counts, (0, tokens[offsets[:-1]]), 1)
    after = np.where(first[1:] | (np.arange(1, len(tokens) + 1) == len(tokens)), 0, following[1:])
    np.add.at(counts, (tokens, after), 1)
    counts[0, 0] = 0
    with np.errstate(divide="ignore"):
        scores = np.log(counts) - np.log(counts.sum(1, keepdims=True))
    scores *= options.lm_weight
    scores[0] += options.unknown_score + options.word_score
    return np.maximum(scores, -1e5).astype(np.float32)


def is_mark(word: str) -> bool:
    """Whether it was written as its phones."""
    return word.startswith("<") and word.endswith(">")


def unknown_word(tokens: list[int], bigram: np.ndarray | None, phones: PhoneSet) -> Added:
    """As a pronunciation with the score that the search gave it; written as its phones, `<sɜːʃə>`."""
    assert bigram is not None
    steps = zip([0, *tokens], [*tokens, 0], strict=True)
    return Added(
        word=f"<{''.join(phones.symbols[t] for t in tokens)}>",
        word_id=-1,
        tokens=np.array(tokens, np.int16),
        lm_id=0,
        score=float(sum(bigram[a, b] for a, b in steps)),
        unknown=True,
    )

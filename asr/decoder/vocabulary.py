"""The words of a lexicon as flat arrays: what the search needs to know of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from asr.decoder.ngram import NgramModel
from asr.decoder.options import DecoderOptions
from asr.lexicon import Entry
from asr.phones import PhoneSet
from asr.text import normalize

LONGEST = 250  # phones of a pronunciation
LONG_ENOUGH = 6  # phones of a pronunciation that is still like no other word without one of them


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Pronunciations in the order of their tokens, so that those with a common beginning stand together.

    `tokens` int16: pronunciation i is tokens[offsets[i] : offsets[i + 1]]. `word` (pronunciations,) int32 is
    the place in `words`. `lm_id` int32 is the word's id in the language model, 0 where it knows none. `score`
    float32 is what the end of a word scores beside the language model; `unknown` marks those for which that
    includes all of the language model's. `full` (pronunciations,) int32: of which pronunciation it is, itself
    or one with a phone more.
    """

    words: tuple[str, ...]
    tokens: np.ndarray
    offsets: np.ndarray
    word: np.ndarray
    lm_id: np.ndarray
    score: np.ndarray
    unknown: np.ndarray
    full: np.ndarray

    def __len__(self) -> int:
        return len(self.word)

    def tokens_of(self, pronunciation: int) -> list[int]:
        return self.tokens[self.offsets[pronunciation] : self.offsets[pronunciation + 1]].tolist()


def build_vocabulary(
    entries: Sequence[Entry], phones: PhoneSet, lm: NgramModel | None, options: DecoderOptions
) -> Vocabulary:
    """Raises UnknownPhone, and ValueError for a pronunciation that is empty or longer than LONGEST."""
    encoded: dict[tuple[str, tuple[int, ...]], tuple[Entry, WordScore, tuple[int, ...]]] = {}
    scorer = WordScorer(lm, options)
    for entry in entries:
        tokens = tuple(phones.encode(entry.phones))
        check_length(entry, len(tokens))
        # Of two lines that say the same the later one, which is the user's, holds.
        encoded[entry.word, tokens] = entry, scorer(entry), tokens
    for (word, tokens), (entry, score, _) in list(encoded.items()):
        for shorter, lower in score.with_a_phone_missing(tokens).items():
            encoded.setdefault((word, shorter), (entry, lower, tokens))
    keys = sorted(encoded, key=lambda key: key[1])
    place = {key: i for i, key in enumerate(keys)}
    ids: dict[str, int] = {}
    scored = [encoded[key][1] for key in keys]
    share = scorer.share_of(
        len({word for (word, _), score in zip(keys, scored, strict=True) if score.unknown})
    )
    lengths = [len(tokens) for _, tokens in keys]
    return Vocabulary(
        tokens=np.fromiter((t for _, tokens in keys for t in tokens), np.int16, sum(lengths)),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        word=np.array([ids.setdefault(word, len(ids)) for word, _ in keys], np.int32),
        lm_id=np.array([s.lm_id for s in scored], np.int32),
        score=np.array([s.score + share * s.unknown for s in scored], np.float32),
        unknown=np.array([s.unknown for s in scored], np.bool_),
        full=np.array([place[word, encoded[word, tokens][2]] for word, tokens in keys], np.int32),
        words=tuple(ids),
    )


def check_length(entry: Entry, length: int) -> None:
    if not 0 < length <= LONGEST:
        raise ValueError(f"{entry.where}: {entry.word!r} has {length} phones; 1 to {LONGEST} can be decoded")


@dataclass(frozen=True)
class WordScore:
    """`lm_id`, `score` and `unknown` as in Vocabulary; `missing_phone` is what it costs to leave out a phone,
    None where none may be; `has_floor`: the language model gives it at least what it gives unknown words."""

    lm_id: int
    score: float
    unknown: bool
    missing_phone: float | None = None
    has_floor: bool = False

    def with_a_phone_missing(self, tokens: Sequence[int]) -> dict[tuple[int, ...], WordScore]:
        """The pronunciations that are one of `tokens` shorter, each once, and their scores.

        A sound that a speaker swallows or the acoustic model misses does no great harm to a word that the
        language model expects. A word that is new there stands alone against all that is expected."""
        if self.missing_phone is None or len(tokens) < LONG_ENOUGH:
            return {}
        lower = replace(self, score=self.score + self.missing_phone)
        return {(*tokens[:i], *tokens[i + 1 :]): lower for i in range(len(tokens))}


class WordScorer:
    """Where a lexicon entry stands in the language model, and what it scores beside it."""

    def __init__(self, lm: NgramModel | None, options: DecoderOptions) -> None:
        self._lm, self._options = lm, options

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return self._lm.ids() if self._lm is not None else {}

    def knows(self, word: str) -> bool:
        """Whether the language model has it."""
        return self._ids.get(word, 0) > 0 or self._ids.get(normalize(word), 0) > 0

    def share_of(self, count: int) -> float:
        """What each of `count` words that the language model does not know scores beside its own score: all
        together as much as `unknown_words` of them without it."""
        if self._lm is None or count == 0:
            return 0.0
        options = self._options
        return options.lm_weight * math.log(max(1.0, options.unknown_words / count))

    @property
    def unknown_score(self) -> float:
        """What a word that the language model does not know scores there, weighted."""
        return self._options.lm_weight * self._options.unknown_word_score

    def __call__(self, entry: Entry, added: bool = False) -> WordScore:
        """`added`: by somebody who expects it."""
        options = self._options
        score = options.word_score + entry.boost
        if entry.weight != 1.0:
            score += math.log(entry.weight)
        if self._lm is None:
            return WordScore(0, score, True)
        missing, floor = options.missing_phone_score, added and options.added_at_least_unknown
        name = entry.like or entry.word
        lm_id = self._ids.get(name, -1)
        if lm_id < 0:
            lm_id = self._ids.get(normalize(name), -1)
        if lm_id > 0 and entry.like:
            return WordScore(lm_id, score, False, missing)  # here the user says how likely it is
        if lm_id > 0:
            return WordScore(lm_id, score, False, missing if floor else None, floor)
        return WordScore(0, score + self.unknown_score, True, missing)

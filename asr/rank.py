"""Pronunciations of a word ranked by how well they explain recordings of it.

A pronunciation scores what the recordings make of it, how usual its phones are after one another where the
model leaves that to a phone n-gram, and what its distance to the nearest one that was guessed from the
spelling costs: one recording alone may be misheard, several outvote any guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from asr.lines import Sounds
from asr.neighbours import Costs, Sorted, confusion_costs, find_neighbours
from asr.phones import PhoneSet
from asr.spoken import Tokens, edits, explain, heard, likely_tokens

HEARD = "heard"
GUESS_WEIGHT = 1.0  # of the distance to the nearest guess, beside the recordings
LM_WEIGHT = 0.3  # of the phone n-gram: with more, words of few phones are preferred
FARTHEST = 16.0  # distance beyond which a guess says nothing: the spelling misleads
_SURPRISE = 0.01  # of each frame's probability that is spread over all tokens: no frame rules anything out
_STARTS, _ROUNDS = 3, 20  # of the search for better pronunciations: from where, how often


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A pronunciation and where it comes from. Natural logs: `fits` is how well each recording is explained,
    `score` their sum with the n-gram's share and what the distance to the guesses costs."""

    sounds: Sounds
    sources: tuple[str, ...]
    fits: tuple[float, ...]
    score: float


def rank(
    recordings: Sequence[np.ndarray],
    guesses: Mapping[Sounds, tuple[Sequence[str], float]],
    phones: PhoneSet,
    guess_weight: float = GUESS_WEIGHT,
    phone_lm: np.ndarray | None = None,
) -> list[Candidate]:
    """Candidates, best first: guesses, what is heard in each recording, what is heard in all together.

    `recordings`: of each the (frames, tokens) log-probs of the word alone, natural log. `guesses`: sounds ->
    where they come from, and a handicap in units of distance. `phone_lm`: as `decode_phones` takes it.
    """
    costs = confusion_costs(phones)
    recordings = [
        np.log(np.exp(rows) * (1 - _SURPRISE) + _SURPRISE / rows.shape[1]).astype(np.float32)
        for rows in recordings
    ]
    encoded = {tuple(phones.encode(said)): guess for said, guess in guesses.items()}
    handicaps = {tokens: handicap for tokens, (_, handicap) in encoded.items()}
    sources: dict[Tokens, tuple[str, ...]] = {tokens: tuple(named) for tokens, (named, _) in encoded.items()}
    for tokens in dict.fromkeys(said for rows in recordings for said in heard(rows) if said):
        sources[tokens] = (*sources.get(tokens, ()), HEARD)

    def score(pool: Sequence[Tokens]) -> tuple[np.ndarray, np.ndarray]:
        fits = np.array([explain(rows, pool) for rows in recordings])
        usual = 0.0 if phone_lm is None else LM_WEIGHT * _log_probs(pool, phone_lm)
        return fits, fits.sum(0) + usual - guess_weight * _distances(pool, handicaps, costs)

    pool = list(sources)
    _, totals = score(pool)
    among = likely_tokens(recordings)
    for start in np.argsort(-totals, kind="stable")[:_STARTS].tolist():
        tokens, best = pool[start], float(totals[start])
        for _ in range(_ROUNDS):
            near = edits(tokens, among)
            _, found = score(near)
            if not near or found.max() <= best:
                break
            tokens, best = near[int(found.argmax())], float(found.max())
        sources.setdefault(tokens, (HEARD,))
    pool = list(sources)
    fits, totals = score(pool)
    return [
        Candidate(
            sounds=tuple(phones.symbols[t] for t in pool[i]),
            sources=sources[pool[i]],
            fits=tuple(fits[:, i].tolist()),
            score=float(totals[i]),
        )
        for i in np.argsort(-totals, kind="stable").tolist()
    ]


def _log_probs(pool: Sequence[Tokens], phone_lm: np.ndarray) -> np.ndarray:
    """Natural log of each string under the n-gram, as at the beginning of an utterance and without its end.
    For words amid a sentence a mean over all histories was no better (RESULTS.md)."""
    padded = [np.array((0, 0, *tokens), np.int64) for tokens in pool]
    return np.array([phone_lm[p[:-2], p[1:-1], p[2:]].sum() for p in padded])


def _distances(pool: Sequence[Tokens], guesses: Mapping[Tokens, float], costs: Costs) -> np.ndarray:
    """Of each to the nearest guess, handicap and all, at most FARTHEST; 0 where there are no guesses."""
    if not guesses:
        return np.zeros(len(pool))
    order = sorted(range(len(pool)), key=lambda i: pool[i])
    offsets = np.cumsum([0, *(len(pool[i]) for i in order)])
    among = Sorted.of(np.array([t for i in order for t in pool[i]], np.int16), offsets)
    nearest = np.full(len(pool), FARTHEST)
    for tokens, handicap in guesses.items():
        numbers, distances = find_neighbours(np.array(tokens), among, costs, FARTHEST)
        places = np.array(order)[numbers]
        nearest[places] = np.minimum(nearest[places], distances + handicap)
    return nearest

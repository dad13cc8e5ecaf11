"""How well pronunciations explain a stretch of emissions, which do so best, and where in it a word lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from asr.decoder.ctc import relative, relative_score

Tokens = tuple[int, ...]
_SILENT = math.log(0.9)  # a frame whose blank is likelier holds no phone
_LIKELY = math.log(1e-3)  # a token that a frame finds less likely does not begin there
_NEVER = -1e30


@dataclass(frozen=True, kw_only=True)
class Span:
    """Where tokens lie: `frames` begins each of them, `end` is the frame after the last. `score`: natural log
    of the best path, with what is outside."""

    frames: tuple[int, ...]
    end: int
    score: float


def trim(log_probs: np.ndarray) -> tuple[int, int]:
    """First frame of what is no silence in (frames, tokens) log-probs, and the one after its last, with a
    frame of silence on both sides where there is one. Both 0 where all is silent."""
    sounding = np.flatnonzero(log_probs[:, 0] < _SILENT)
    if not len(sounding):
        return 0, 0
    return max(0, int(sounding[0]) - 1), min(len(log_probs), int(sounding[-1]) + 2)


def explain(log_probs: np.ndarray, pronunciations: Sequence[Tokens]) -> np.ndarray:
    """float64: for each pronunciation the natural log of its probability, summed over all alignments."""
    offsets = np.cumsum([0, *map(len, pronunciations)], dtype=np.int64)
    tokens = np.fromiter((t for p in pronunciations for t in p), np.int16, offsets[-1])
    scores = np.empty(len(pronunciations))
    _explain(np.ascontiguousarray(log_probs, np.float32), tokens, offsets, scores)
    return scores


def heard(log_probs: np.ndarray, count: int = 10, beam_size: int = 30) -> list[Tokens]:
    """The likeliest token strings, best first, by a prefix search (Graves 2012, section 7.5) with a beam."""
    # Prefix -> log-probability of its alignments that end in blank, and in its last token.
    beam: dict[Tokens, tuple[float, float]] = {(): (0.0, -math.inf)}
    for row in log_probs:
        likely = [t for t in np.flatnonzero(row > _LIKELY).tolist() if t]
        grown: dict[Tokens, tuple[float, float]] = {}
        for prefix, (blank, token) in beam.items():
            total = np.logaddexp(blank, token)
            _gain(grown, prefix, total + row[0], token + row[prefix[-1]] if prefix else -math.inf)
            for t in likely:
                before = blank if prefix and t == prefix[-1] else total
                _gain(grown, (*prefix, t), -math.inf, before + row[t])
        best = sorted(grown.items(), key=lambda item: -np.logaddexp(*item[1]))
        beam = dict(best[:beam_size])
    return list(beam)[:count]


def _gain(grown: dict[Tokens, tuple[float, float]], prefix: Tokens, blank: float, token: float) -> None:
    old = grown.get(prefix, (-math.inf, -math.inf))
    grown[prefix] = float(np.logaddexp(old[0], blank)), float(np.logaddexp(old[1], token))


def likely_tokens(log_probs: Sequence[np.ndarray], least: float = 0.01) -> list[int]:
    """Tokens that some frame of some recording finds as likely as `least`, a probability."""
    best = np.max([rows.max(0) for rows in log_probs], 0)
    return [t for t in np.flatnonzero(best > math.log(least)).tolist() if t]


def edits(tokens: Tokens, among: Sequence[int]) -> list[Tokens]:
    """All that differ from `tokens` in one token: another of `among`, one more of them, or one less."""
    found = [(*tokens[:i], t, *tokens[i:]) for i in range(len(tokens) + 1) for t in among]
    for i in range(len(tokens)):
        found += [(*tokens[:i], t, *tokens[i + 1 :]) for t in among if t != tokens[i]]
        if len(tokens) > 1:
            found.append((*tokens[:i], *tokens[i + 1 :]))
    return list(dict.fromkeys(found))


def find_span(log_probs: np.ndarray, tokens: Tokens, free: bool = False) -> Span | None:
    """Where `tokens` lie in (frames, tokens) log-probs: what is before and after is blank, or with `free`
    anything at all. None where the frames are too few."""
    rows = np.ascontiguousarray(log_probs, np.float32)
    outside = rows.max(1) if free else rows[:, 0]
    frames = np.zeros(len(tokens) + 1, np.int64)
    score = float(_find_span(rows, np.array(tokens, np.int64), outside, frames)) if len(tokens) else _NEVER
    if score <= _NEVER / 2:
        return None
    return Span(frames=tuple(frames[:-1].tolist()), end=int(frames[-1]), score=score)


@njit(cache=True, nogil=True)
def _explain(log_probs, tokens, offsets, scores):
    shares, highest = relative(log_probs)
    for i in range(scores.shape[0]):
        scores[i] = highest + relative_score(shares, tokens[offsets[i] : offsets[i + 1]])


@njit(cache=True, nogil=True)
def _find_span(log_probs, tokens, outside, frames):
    """The best path through: outside, then each token and perhaps blank after it, then outside again."""
    steps, count = log_probs.shape[0], tokens.shape[0]
    # State 0 is before, 2k + 1 token k, 2k + 2 blank after it; the last one is what comes after.
    last = 2 * count
    score = np.full(last + 1, _NEVER)
    back = np.zeros((steps, last + 1), np.int8)
    for t in range(steps):
        for s in range(last, -1, -1):
            best, step = score[s], 0
            if t == 0:
                best = 0.0 if s < 2 else _NEVER
                step = s
            elif s > 0:
                if score[s - 1] > best:
                    best, step = score[s - 1], 1
                if s % 2 and s > 2 and tokens[s // 2] != tokens[s // 2 - 1] and score[s - 2] > best:
                    best, step = score[s - 2], 2
            if s % 2:
                cost = log_probs[t, tokens[s // 2]]
            else:
                cost = outside[t] if s == 0 or s == last else log_probs[t, 0]
            score[s] = best + cost
            back[t, s] = step
    s = last if score[last] >= score[last - 1] else last - 1
    total = score[s]
    frames[count] = steps
    for t in range(steps - 1, -1, -1):
        step = back[t, s]
        if s == last and step:
            frames[count] = t
        if s % 2 and step:
            frames[s // 2] = t
        s -= step
    return total

"""What travels between the parts: frozen records without logic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Emissions:
    """Phone posteriors of one recording, the only thing that encoder and decoder share.

    `log_probs`: float32 array (frames, tokens), natural log, each row sums to one; token 0 is blank.
    `frame_s`: seconds from one frame to the next. Frame i is centred at (i + 0.5) * frame_s.
    """

    log_probs: np.ndarray
    frame_s: float


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """One way to read the emissions.

    `token_ids` are the phones of the path with blanks and repetitions removed, `token_frames` the frame
    where each begins, `word_ends` for each word the number of tokens up to its end.
    `token_scores`, where they were asked for, are the tokens' log-probabilities in those frames.
    `score` = acoustic_score + lm_weight * lm_score + word_score * words (+ boosts), natural log.
    `lm_score` is the language model's own log-probability of the words and the sentence end, unweighted;
    where a second one had a say, the mixture of both.
    """

    words: tuple[str, ...]
    token_ids: tuple[int, ...]
    token_frames: tuple[int, ...]
    word_ends: tuple[int, ...]
    acoustic_score: float
    lm_score: float
    score: float
    token_scores: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Word:
    """A recognised word, its place in the recording in seconds, and the phones that were heard.

    `score`: mean log-probability (natural log) of the phones, each in the frame where it begins; 0: certain.
    """

    text: str
    start_s: float
    end_s: float
    phones: tuple[str, ...] = ()
    score: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """The text of one recording. `alternatives` are whole-recording texts, best first, with --nbest.

    `sounds` are the phones that are heard without lexicon and language model.
    """

    path: str
    text: str
    duration_s: float
    words: tuple[Word, ...] = ()
    score: float = 0.0
    alternatives: tuple[tuple[str, float], ...] = field(default=())
    sounds: tuple[str, ...] = ()

"""Sentences that nobody said, from words that somebody did.

A network that hears few texts again and again learns them by heart, and guesses a word by those around it; on
other texts it guesses wrong. Words in an order without sense leave nothing to guess: what was said can only
be heard (after Lam et al. 2021, On-the-fly aligned data augmentation for sequence-to-sequence ASR, who
replace single words of a sentence; here all of its phrases get other neighbours).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from asr.model.features import FRAMES_PER_SECOND, HOP_LENGTH
from asr.training.snippets import WordPlaces

_FADE = 64  # samples, 4 ms: a cut must not click
_LOUDEST = 4.0  # what a quiet recording is amplified by at most


@dataclass(frozen=True, kw_only=True)
class SpliceConfig:
    """A phrase has up to `words` words as they were said, with up to `pause` frames of the silence at either
    end. The phrases of up to `recordings` recordings are shuffled, and make sentences that are at least as
    long as a number of seconds drawn from `lasting_s`, but the last one. Speakers of whom fewer than
    `speaker_recordings` are known are mixed with the others of their set."""

    words: int = 3
    pause: int = 12
    recordings: int = 4
    lasting_s: tuple[float, float] = (2.0, 7.0)
    speaker_recordings: int = 5


@dataclass(frozen=True)
class Phrase:
    """Words of a recording: first frame and the one after the last, first phone and the one after the last,
    of those of the recording."""

    recording: int
    first: int
    last: int
    first_phone: int
    last_phone: int


def plan_splices(
    speakers: Sequence[tuple[str, str]],
    frames: Sequence[int],
    words: WordPlaces,
    config: SpliceConfig,
    rng: np.random.Generator,
) -> Iterator[list[Phrase]]:
    """The phrases of each new sentence. Each word of the recordings is used once.

    `speakers`: set and speaker of each recording, who may be unknown (''); `frames` of each recording.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for i in np.flatnonzero(np.diff(words.offsets)):
        groups.setdefault(speakers[int(i)], []).append(int(i))
    voices = [of for key, of in groups.items() if key[1] and len(of) >= config.speaker_recordings]
    others: dict[str, list[int]] = {}
    for key, of in groups.items():
        if not key[1] or len(of) < config.speaker_recordings:
            others.setdefault(key[0], []).extend(of)
    for group in [*voices, *others.values()]:
        order = rng.permutation(group)
        while len(order):
            count = rng.integers(1, config.recordings + 1)
            taken, order = order[:count], order[count:]
            phrases = [phrase for i in taken for phrase in _phrases(int(i), frames[i], words, config, rng)]
            yield from _sentences([phrases[k] for k in rng.permutation(len(phrases))], config, rng)


def _phrases(
    recording: int, frames: int, words: WordPlaces, config: SpliceConfig, rng: np.random.Generator
) -> Iterator[Phrase]:
    """All words of a recording, a few at a time."""
    places = words.places[words.offsets[recording] : words.offsets[recording + 1]]
    # Half of a silence belongs to either of its neighbours, that at the ends to one word alone.
    middle = (places[:-1, 1] + places[1:, 0]) // 2
    earliest, latest = np.append(0, middle), np.append(middle, frames)
    k = 0
    while k < len(places):
        beyond = min(k + int(rng.integers(1, config.words + 1)), len(places))
        before, after = rng.integers(0, config.pause + 1, 2)
        yield Phrase(
            recording,
            int(max(places[k, 0] - before, earliest[k])),
            int(min(places[beyond - 1, 1] + after, latest[beyond - 1])),
            int(places[k, 2]),
            int(places[beyond - 1, 3]),
        )
        k = beyond


def _sentences(
    phrases: list[Phrase], config: SpliceConfig, rng: np.random.Generator
) -> Iterator[list[Phrase]]:
    sentence: list[Phrase] = []
    frames, wanted = 0, 0.0
    for phrase in phrases:
        if not sentence:
            frames, wanted = 0, rng.uniform(*config.lasting_s) * FRAMES_PER_SECOND
        sentence.append(phrase)
        frames += phrase.last - phrase.first
        if frames >= wanted:
            yield sentence
            sentence = []
    if sentence:
        yield sentence


def join(phrases: Sequence[Phrase], recordings: Sequence[np.ndarray]) -> np.ndarray:
    """The int16 waveforms (samples,) of the recordings of these phrases -> their sentence, int16.

    It has as many feature frames as the phrases together: frames are centred on every 160th sample, so that
    a cut lies half of that before a frame. All phrases get the level of the first one's recording.
    """
    levels = [float(np.sqrt(np.square(of.astype(np.float32)).mean())) + 1 for of in recordings]
    half = HOP_LENGTH // 2
    parts = []
    for phrase, waveform, level in zip(phrases, recordings, levels, strict=True):
        first, last = phrase.first * HOP_LENGTH - half, phrase.last * HOP_LENGTH - half
        part = np.zeros(last - first, np.float32)
        inside = waveform[max(first, 0) : last]
        part[max(-first, 0) : max(-first, 0) + len(inside)] = inside
        fade = np.linspace(0, 1, min(_FADE, len(part)), dtype=np.float32)
        part[: len(fade)] *= fade
        part[len(part) - len(fade) :] *= fade[::-1]
        parts.append(part * min(levels[0] / level, _LOUDEST))
    whole = np.concatenate(parts)[half:]
    return np.clip(whole, -32_768, 32_767).round().astype(np.int16)

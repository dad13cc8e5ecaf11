"""Words cut out of aligned sentences and put into silence: speech as of a person who says one word alone.

Who reads sentences never does; a network that heard nothing else does not expect a word between two silences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from asr.model.features import FRAMES_PER_SECOND, HOP_LENGTH
from asr.training.alignment import STATES_PER_PHONE


@dataclass(frozen=True, kw_only=True)
class Extracts:
    """What is heard of each of n recordings that lie one behind the other; arrays (n,) int64.

    `starts` and `lengths`: samples. `first_frames` and `frames`: where their labels begin and how many there
    are. `first_phones` and `last_phones`: from one to before the other. `before` and `after`: feature frames
    of silence that is added around it.
    """

    starts: np.ndarray
    lengths: np.ndarray
    first_frames: np.ndarray
    frames: np.ndarray
    first_phones: np.ndarray
    last_phones: np.ndarray
    before: np.ndarray
    after: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, which: np.ndarray) -> Extracts:
        """Those of these indices, or where `which` is true."""
        return Extracts(**{field.name: getattr(self, field.name)[which] for field in fields(self)})

    def replaced(self, which: np.ndarray, others: Extracts) -> Extracts:
        """With `others` in place of those of these indices."""
        mixed = {field.name: getattr(self, field.name).copy() for field in fields(self)}
        for name, values in mixed.items():
            values[which] = getattr(others, name)
        return Extracts(**mixed)

    def total_frames(self) -> np.ndarray:
        """With the silence."""
        return self.before + self.frames + self.after


@dataclass(frozen=True, kw_only=True)
class SnippetConfig:
    """`words`: at most. `margin`: frames of what is around them that stay, at most. `total_s`: words and
    silence together last as long; longer words get no silence. Half of them begin at once."""

    words: int = 3
    margin: int = 4
    total_s: tuple[float, float] = (1.0, 2.5)


@dataclass(frozen=True)
class WordPlaces:
    """Where the words of all recordings are: (words, 4) int64, first frame and the one after the last, first
    phone and the one after the last, counted from those of the recording; of recording i in
    places[offsets[i] : offsets[i + 1]]."""

    places: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(
        cls, classes: Sequence[np.ndarray], phones: Sequence[np.ndarray], word_starts: Sequence[np.ndarray]
    ) -> WordPlaces:
        """For each recording the class of its frames, its phones, and whether each begins a word. It has no
        words where these are not known, or the frames are not those of the phones."""
        found = [_places_of(*of) for of in zip(classes, phones, word_starts, strict=True)]
        offsets = np.cumsum([0, *map(len, found)])
        return cls(np.concatenate(found) if found else _NO_WORDS, offsets)

    def cut(
        self, recordings: Extracts, which: np.ndarray, config: SnippetConfig, rng: np.random.Generator
    ) -> Extracts:
        """Of `recordings`, whose indices here are `which`, a few words each; none of them may be without."""
        offsets, numbers = self.offsets[which], self.offsets[which + 1] - self.offsets[which]
        count = np.minimum(rng.integers(1, config.words + 1, len(which)), numbers)
        first = offsets + rng.integers(0, numbers - count + 1)
        begin, first_phone = self.places[first, 0], self.places[first, 2]
        end, last_phone = self.places[first + count - 1, 1], self.places[first + count - 1, 3]
        margins = rng.integers(0, config.margin + 1, (2, len(which)))
        begin, end = np.maximum(begin - margins[0], 0), np.minimum(end + margins[1], recordings.frames)
        frames = end - begin
        lasting = np.round(rng.uniform(*config.total_s, len(which)) * FRAMES_PER_SECOND).astype(np.int64)
        silence = np.maximum(lasting - frames, 0)
        before = np.where(rng.random(len(which)) < 0.5, 0, rng.integers(0, silence + 1))
        return replace(
            recordings,
            starts=recordings.starts + begin * HOP_LENGTH,
            lengths=np.minimum(frames * HOP_LENGTH, recordings.lengths - begin * HOP_LENGTH),
            first_frames=recordings.first_frames + begin,
            frames=frames,
            first_phones=recordings.first_phones + first_phone,
            last_phones=recordings.first_phones + last_phone,
            before=before,
            after=silence - before,
        )


_NO_WORDS = np.zeros((0, 4), np.int64)


def _places_of(classes: np.ndarray, phones: np.ndarray, word_starts: np.ndarray) -> np.ndarray:
    phone, state = classes // STATES_PER_PHONE, classes % STATES_PER_PHONE
    begins = np.ones(len(classes), bool)
    begins[1:] = (phone[1:] != phone[:-1]) | (state[1:] < state[:-1])
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(classes))
    spoken = phone[first] != 0
    first, last = first[spoken], last[spoken]
    if not len(phones) or len(word_starts) != len(phones) or not np.array_equal(phone[first], phones):
        return _NO_WORDS
    word = np.flatnonzero(word_starts)
    beyond = np.append(word[1:], len(phones))
    return np.stack([first[word], last[beyond - 1], word, beyond], 1).astype(np.int64)

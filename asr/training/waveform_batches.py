"""Batches of augmented speech made from waveforms on the device that trains.

A batch is gathered from all waveforms, played at other speeds, put in rooms and noises and turned to features
there. No two epochs hear an utterance alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr.model.features import FRAMES_PER_SECOND, HOP_LENGTH, SAMPLE_RATE, LogMel, normalize_features
from asr.training.batches import Batch, like_lengths, neighbours, obstacle, usage
from asr.training.loop import share_of
from asr.training.prepared import UNLABELLED, Alignments, Prepared
from asr.training.snippets import Extracts, SnippetConfig, WordPlaces
from asr.training.waveform_augment import (
    Dice,
    Sounds,
    WaveformAugmentConfig,
    in_rooms,
    over_telephones,
    read_at_speed,
    spec_augment,
    with_noise,
    with_other_tracts,
)
from asr.training.waveform_pool import WaveformPool


@dataclass(frozen=True, kw_only=True)
class WaveformBatchConfig:
    """As `BatchConfig`, for `WaveformSource`. `noises`: a folder with noise.tsv. `first_times`: how often an
    epoch takes the utterances of the first folder. `snippets`: share of the aligned utterances of which a few
    words alone are heard."""

    seconds: float = 480.0
    mels: tuple[int, int] = (2, 12)
    times: tuple[int, int] = (150, 18)
    augment: WaveformAugmentConfig = field(default_factory=WaveformAugmentConfig)
    noises: Path | None = None
    first_times: int = 1
    snippets: float = 0.0
    cut: SnippetConfig = field(default_factory=SnippetConfig)
    longest_s: float = 20.0
    stride: int = 3
    seed: int = 1


class WaveformSource:
    """All aligned utterances of folders prepared with --waveforms. An epoch's batches depend on seed, epoch
    and device alone."""

    def __init__(
        self, parts: Sequence[tuple[Prepared, Alignments]], config: WaveformBatchConfig, device: torch.device
    ) -> None:
        """Raises ValueError for folders without waveforms, alignments of other speech, where nothing is left
        to train on, and for snippets where no word's place is known."""
        self.config, self.device = config, device
        self._sounds = Sounds.read(config.noises, device)
        self._features = LogMel().to(device)
        waveforms: list[np.ndarray] = []
        spans: list[np.ndarray] = []  # samples of each utterance in the pool
        frames: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        targets: list[np.ndarray] = []
        word_starts: list[np.ndarray] = []
        for prepared, alignments in parts:
            if prepared.waveforms is None:
                raise ValueError("no waveforms: prepare the speech with recipes/prepare.py --waveforms")
            alignments.check_of(prepared)
            spans.append(np.array([u.samples for u in prepared.utterances]) + sum(map(len, waveforms)))
            waveforms.append(prepared.waveforms)
            frames.append(np.array([np.diff(u.spans["1.00"])[0] for u in prepared.utterances]))
            targets += [alignments.targets(i) for i in range(len(prepared.utterances))]
            word_starts += [alignments.starts_of_words(i) for i in range(len(prepared.utterances))]
            beside = neighbours(alignments.classes, np.cumsum([0, *frames[-1]]))
            labels.append(np.stack([alignments.classes, *beside]))
        self._pool = WaveformPool(waveforms, device)
        self._labels = torch.from_numpy(np.concatenate(labels, 1)).to(device)
        self._phones = np.concatenate(targets).astype(np.int64)
        self._all = _whole(np.concatenate(spans), np.concatenate(frames), [len(of) for of in targets])
        self._words: WordPlaces | None = None
        if config.snippets:
            classes = np.split(np.concatenate([of[0] for of in labels]), self._all.first_frames[1:])
            self._words = WordPlaces.of(classes, targets, word_starts)
            if not len(self._words.places):
                raise ValueError(
                    "--snippets needs the places of words: run recipes/align.py again, without --spoken"
                )
        obstacles = [self._obstacle(i) for i in range(len(self._all))]
        self._left_out = Counter(obstacles)
        usable = np.array([i for i, obstacle in enumerate(obstacles) if not obstacle], np.int64)
        if not len(usable):
            raise ValueError(
                f"no utterance is aligned, short enough and long enough for its phones: {self.usage()}"
            )
        of_first = usable < len(frames[0])
        self.usable = np.concatenate([*[usable[of_first]] * config.first_times, usable[~of_first]])
        self._others = [self._on_device(of[self.usable]) for of in (self._all.starts, self._all.lengths)]

    def usage(self) -> str:
        """How many utterances are trained on, and why the others are not."""
        return usage(len(self._all), self._left_out, self.config.longest_s)

    def targets(self, index: int) -> np.ndarray:
        return self._phones[self._all.first_phones[index] : self._all.last_phones[index]]

    def _obstacle(self, index: int) -> str:
        frames = self._all.frames[index]
        shortest = int(frames / self.config.augment.speed[1]) // self.config.stride
        return obstacle(self.targets(index), frames, shortest, self.config.longest_s)

    def epoch(self, number: int, skip: int = 0, process: int = 0, processes: int = 1) -> Iterator[Batch]:
        """As `BatchSource.epoch`."""
        rng = np.random.default_rng([self.config.seed, number])
        speeds = rng.uniform(*self.config.augment.speed, len(self.usable))
        heard = self._all.take(self.usable)
        if self._words is not None:
            heard = self._with_snippets(heard, self._words, rng)
        lengths = heard.total_frames() / speeds
        groups = like_lengths(lengths, self.config.seconds * FRAMES_PER_SECOND, rng)
        for k in share_of(rng.permutation(len(groups)), skip, process, processes):
            generator = torch.Generator(self.device)
            generator.manual_seed(
                int(np.random.default_rng([self.config.seed, number, int(k)]).integers(1 << 62))
            )
            chosen = np.array(groups[k])
            yield self._make(heard.take(chosen), speeds[chosen], generator)

    def _with_snippets(self, heard: Extracts, words: WordPlaces, rng: np.random.Generator) -> Extracts:
        """A share of the utterances replaced by a few of their words."""
        has_words = np.diff(words.offsets)[self.usable] > 0
        chosen = np.flatnonzero(has_words & (rng.random(len(heard)) < self.config.snippets))
        cut = words.cut(heard.take(chosen), self.usable[chosen], self.config.cut, rng)
        # What would be too short for its phones, repeated ones perhaps, stays whole.
        shortest = cut.total_frames() / self.config.augment.speed[1] // self.config.stride
        possible = 2 * (cut.last_phones - cut.first_phones) <= shortest
        return heard.replaced(chosen[possible], cut.take(possible))

    def _make(self, heard: Extracts, speeds: np.ndarray, generator: torch.Generator) -> Batch:
        config, dice = self.config, Dice(generator, len(heard))
        rates = self._on_device(speeds.astype(np.float32))
        waveforms, lengths = self._read(heard, rates)
        babble = self._babble(waveforms.shape[1], dice)
        waveforms = in_rooms(waveforms, self._sounds, config.augment.room, dice)
        spoken = self._on_device(heard.lengths) / rates
        waveforms = with_noise(waveforms, lengths, spoken, babble, self._sounds, config.augment, dice)
        features, frames = self._features(waveforms, lengths)
        features = with_other_tracts(features, config.augment, dice)
        features = over_telephones(features, frames, config.augment, dice)
        features = normalize_features(features, frames)
        features = spec_augment(features, frames, config.mels, config.times, dice)
        numbers = heard.last_phones - heard.first_phones
        padded = np.zeros((len(heard), numbers.max()), np.int64)
        for row, first, last in zip(padded, heard.first_phones, heard.last_phones, strict=True):
            row[: last - first] = self._phones[first:last]
        classes, left, right = self._frame_labels(heard, rates, frames)
        samples = heard.lengths + (heard.before + heard.after) * HOP_LENGTH
        return Batch(
            features=features, lengths=frames, targets=self._on_device(padded),
            target_lengths=self._on_device(numbers), classes=classes, left=left, right=right,
            seconds=float((samples / speeds).sum() / SAMPLE_RATE),
        )  # fmt: skip

    def _read(self, heard: Extracts, rates: Tensor) -> tuple[Tensor, Tensor]:
        lengths = self._on_device(heard.lengths)
        pool, starts = self._pool.holding(self._on_device(heard.starts), lengths)
        silences = (self._on_device(frames * HOP_LENGTH) for frames in (heard.before, heard.after))
        return read_at_speed(pool, starts, lengths, rates, *silences)

    def _babble(self, num_samples: int, dice: Dice) -> Tensor:
        """(batch, samples) of several utterances at once, each over and over."""
        places = torch.arange(num_samples, device=self.device)
        starts, lengths = self._others
        total = torch.zeros(dice.rows, num_samples, device=self.device)
        for _ in range(self.config.augment.babble):
            other = dice.below(torch.full((dice.rows,), len(starts), device=self.device))
            place = (places + dice.below(lengths[other])[:, None]) % lengths[other][:, None]
            pool, firsts = self._pool.holding(starts[other], lengths[other])
            total += pool[firsts[:, None] + place] / 32_768
        return total

    def _frame_labels(self, heard: Extracts, rates: Tensor, frames: Tensor) -> Tensor:
        """Class, phone before and after (3, batch, encoder frames) int64, -1 beyond the end and in silence
        that was added: those of the frame of the original speed that is in the middle of each encoder frame.
        What is beside the words of a snippet is silence or was cut through: neither phone is told.
        """
        stride = self.config.stride
        num = -(-frames // stride)
        places = torch.arange(int(num.max()), device=self.device)
        source = ((places * stride + 1) * rates[:, None]).round().long()
        own = self._on_device(heard.frames)[:, None]
        source -= self._on_device(heard.before)[:, None]
        in_silence = self._on_device(heard.before + heard.after)[:, None] > 0
        silent = in_silence & ((source < 0) | (source >= own))
        source = self._on_device(heard.first_frames)[:, None] + source.clamp_min(0).minimum(own - 1)
        labels = self._labels[:, source].long()
        labels[1:].masked_fill_(in_silence, -1)
        return labels.masked_fill((places >= num[:, None]) | silent | (labels == UNLABELLED), -1)

    def _on_device(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)


def _whole(samples: np.ndarray, frames: np.ndarray, phones: list[int]) -> Extracts:
    """All of each utterance, by its samples in the pool (n, 2) and its numbers of frames and phones (n,)."""
    starts, ends = samples.T
    first_phones = np.cumsum([0, *phones])
    nothing = np.zeros(len(frames), np.int64)
    return Extracts(
        starts=starts, lengths=ends - starts, first_frames=np.cumsum(frames) - frames, frames=frames,
        first_phones=first_phones[:-1], last_phones=first_phones[1:], before=nothing, after=nothing,
    )  # fmt: skip

"""Batches of augmented speech made from waveforms on the device that trains.

All waveforms lie in the device's memory (an hour takes 115 MB); a batch is gathered from them, played at
other speeds, put in rooms and noises and turned to features there. No two epochs hear an utterance alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr.model.features import FRAMES_PER_SECOND, SAMPLE_RATE, LogMel, normalize_features
from asr.training.batches import Batch, like_lengths, neighbours, obstacle, usage
from asr.training.loop import share_of
from asr.training.prepared import UNLABELLED, Alignments, Prepared
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

_CHUNK = 1 << 26  # samples that go to the device at a time


@dataclass(frozen=True, kw_only=True)
class WaveformBatchConfig:
    """As `BatchConfig`, for `WaveformSource`. `noises`: a folder with noise.tsv. `first_times`: how often an
    epoch takes the utterances of the first folder."""

    seconds: float = 480.0
    mels: tuple[int, int] = (2, 12)
    times: tuple[int, int] = (150, 18)
    augment: WaveformAugmentConfig = field(default_factory=WaveformAugmentConfig)
    noises: Path | None = None
    first_times: int = 1
    longest_s: float = 20.0
    stride: int = 3
    seed: int = 1


class WaveformSource:
    """All aligned utterances of folders prepared with --waveforms. An epoch's batches depend on seed, epoch
    and device alone."""

    def __init__(
        self, parts: Sequence[tuple[Prepared, Alignments]], config: WaveformBatchConfig, device: torch.device
    ) -> None:
        """Raises ValueError for folders without waveforms, alignments of other speech, and where nothing is
        left to train on."""
        self.config, self.device = config, device
        self._sounds = Sounds.read(config.noises, device)
        self._features = LogMel().to(device)
        waveforms: list[np.ndarray] = []
        spans: list[np.ndarray] = []  # samples of each utterance in the pool
        frames: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        self._targets: list[np.ndarray] = []
        for prepared, alignments in parts:
            if prepared.waveforms is None:
                raise ValueError("no waveforms: prepare the speech with recipes/prepare.py --waveforms")
            alignments.check_of(prepared)
            spans.append(np.array([u.samples for u in prepared.utterances]) + sum(map(len, waveforms)))
            waveforms.append(prepared.waveforms)
            frames.append(np.array([np.diff(u.spans["1.00"])[0] for u in prepared.utterances]))
            self._targets += [alignments.targets(i) for i in range(len(prepared.utterances))]
            beside = neighbours(alignments.classes, np.cumsum([0, *frames[-1]]))
            labels.append(np.stack([alignments.classes, *beside]))
        self._pool = _on(device, waveforms)
        self._labels = torch.from_numpy(np.concatenate(labels, 1)).to(device)
        self._starts, ends = np.concatenate(spans).T
        self._lengths, self._frames = ends - self._starts, np.concatenate(frames)
        self._first_frames = np.cumsum([0, *self._frames])[:-1]
        obstacles = [self._obstacle(i) for i in range(len(self._starts))]
        self._left_out = Counter(obstacles)
        usable = np.array([i for i, obstacle in enumerate(obstacles) if not obstacle], np.int64)
        if not len(usable):
            raise ValueError(
                f"no utterance is aligned, short enough and long enough for its phones: {self.usage()}"
            )
        of_first = usable < len(frames[0])
        self.usable = np.concatenate([*[usable[of_first]] * config.first_times, usable[~of_first]])
        self._others = [self._on_device(of[self.usable]) for of in (self._starts, self._lengths)]

    def usage(self) -> str:
        """How many utterances are trained on, and why the others are not."""
        return usage(len(self._starts), self._left_out, self.config.longest_s)

    def targets(self, index: int) -> np.ndarray:
        return self._targets[index]

    def _obstacle(self, index: int) -> str:
        shortest = int(self._frames[index] / self.config.augment.speed[1]) // self.config.stride
        return obstacle(self._targets[index], self._frames[index], shortest, self.config.longest_s)

    def epoch(self, number: int, skip: int = 0, process: int = 0, processes: int = 1) -> Iterator[Batch]:
        """As `BatchSource.epoch`."""
        rng = np.random.default_rng([self.config.seed, number])
        speeds = rng.uniform(*self.config.augment.speed, len(self.usable))
        lengths = self._frames[self.usable] / speeds
        groups = like_lengths(lengths, self.config.seconds * FRAMES_PER_SECOND, rng)
        for k in share_of(rng.permutation(len(groups)), skip, process, processes):
            generator = torch.Generator(self.device)
            generator.manual_seed(
                int(np.random.default_rng([self.config.seed, number, int(k)]).integers(1 << 62))
            )
            yield self._make(self.usable[groups[k]], speeds[groups[k]], generator)

    def _make(self, chosen: np.ndarray, speeds: np.ndarray, generator: torch.Generator) -> Batch:
        config, dice = self.config, Dice(generator, len(chosen))
        rates = self._on_device(speeds.astype(np.float32))
        waveforms, lengths = self._read(chosen, rates)
        babble = self._babble(waveforms.shape[1], dice)
        waveforms = in_rooms(waveforms, self._sounds, config.augment.room, dice)
        waveforms = with_noise(waveforms, lengths, babble, self._sounds, config.augment, dice)
        features, frames = self._features(waveforms, lengths)
        features = with_other_tracts(features, config.augment, dice)
        features = over_telephones(features, frames, config.augment, dice)
        features = normalize_features(features, frames)
        features = spec_augment(features, frames, config.mels, config.times, dice)
        targets = [self._targets[i] for i in chosen]
        padded = np.zeros((len(chosen), max(map(len, targets))), np.int64)
        for row, phones in zip(padded, targets, strict=True):
            row[: len(phones)] = phones
        classes, left, right = self._frame_labels(chosen, rates, frames)
        return Batch(
            features=features, lengths=frames, targets=self._on_device(padded),
            target_lengths=self._on_device(np.array([len(t) for t in targets])),
            classes=classes, left=left, right=right,
            seconds=float((self._lengths[chosen] / speeds).sum() / SAMPLE_RATE),
        )  # fmt: skip

    def _read(self, chosen: np.ndarray, rates: Tensor) -> tuple[Tensor, Tensor]:
        starts, lengths = (self._on_device(of[chosen]) for of in (self._starts, self._lengths))
        return read_at_speed(self._pool, starts, lengths, rates)

    def _babble(self, num_samples: int, dice: Dice) -> Tensor:
        """(batch, samples) of several utterances at once, each over and over."""
        places = torch.arange(num_samples, device=self.device)
        starts, lengths = self._others
        total = torch.zeros(dice.rows, num_samples, device=self.device)
        for _ in range(self.config.augment.babble):
            other = dice.below(torch.full((dice.rows,), len(starts), device=self.device))
            place = (places + dice.below(lengths[other])[:, None]) % lengths[other][:, None]
            total += self._pool[starts[other][:, None] + place] / 32_768
        return total

    def _frame_labels(self, chosen: np.ndarray, rates: Tensor, frames: Tensor) -> Tensor:
        """Class, phone before and after (3, batch, encoder frames) int64, -1 beyond the end: those of the
        frame of the original speed that is in the middle of each encoder frame."""
        stride = self.config.stride
        num = -(-frames // stride)
        places = torch.arange(int(num.max()), device=self.device)
        source = ((places * stride + 1) * rates[:, None]).round().long()
        own = self._on_device(self._frames[chosen])[:, None]
        source = self._on_device(self._first_frames[chosen])[:, None] + source.minimum(own - 1)
        labels = self._labels[:, source].long()
        return labels.masked_fill((places >= num[:, None]) | (labels == UNLABELLED), -1)

    def _on_device(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)


def _on(device: torch.device, waveforms: Sequence[np.ndarray]) -> Tensor:
    """All of them one behind the other (samples,) int16; in pieces, for they are mapped files of any size."""
    pool = torch.empty(sum(map(len, waveforms)), dtype=torch.int16, device=device)
    at = 0
    for waveform in waveforms:
        for i in range(0, len(waveform), _CHUNK):
            chunk = torch.tensor(waveform[i : i + _CHUNK])
            pool[at : at + len(chunk)] = chunk
            at += len(chunk)
    return pool

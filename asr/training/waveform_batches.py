"""Batches of augmented speech made from waveforms on the device that trains.

All waveforms lie in the device's memory (an hour takes 115 MB); a batch is gathered from them, played at
other speeds, put in rooms and noises and turned to features there. No two epochs hear an utterance alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr.model.features import LogMel, normalize_features
from asr.training.batches import Batch, like_lengths, neighbours
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
        starts, lengths, frames, self._targets = [], [], [], []
        of_frames: list[list[np.ndarray]] = [[], [], []]
        offset = first = 0
        for prepared, alignments in parts:
            if prepared.waveforms is None:
                raise ValueError("no waveforms: prepare the speech with recipes/prepare.py --waveforms")
            spans = np.array([u.spans["1.00"] for u in prepared.utterances])
            alignments.check_of(prepared)
            samples = np.array([u.spans["samples"] for u in prepared.utterances])
            starts.append(samples[:, 0] + offset)
            lengths.append(samples[:, 1] - samples[:, 0])
            frames.append(spans[:, 1] - spans[:, 0])
            self._targets += [alignments.targets(i) for i in range(len(spans))]
            ends = np.append(spans[:, 0], len(alignments.classes))
            for kind, labels in zip(
                of_frames, (alignments.classes, *neighbours(alignments.classes, ends)), strict=True
            ):
                kind.append(labels)
            offset += len(prepared.waveforms)
            first = first or len(spans)
        self._starts, self._lengths, self._frames = map(np.concatenate, (starts, lengths, frames))
        self._first_frames = np.cumsum([0, *self._frames])[:-1]
        self._pool = torch.empty(offset, dtype=torch.int16, device=device)
        at = 0
        for prepared, _ in parts:
            assert prepared.waveforms is not None
            self._pool[at : at + len(prepared.waveforms)] = torch.tensor(prepared.waveforms)
            at += len(prepared.waveforms)
        self._labels = torch.stack([torch.from_numpy(np.concatenate(kind)) for kind in of_frames]).to(device)
        usable = np.array([i for i in range(len(self._starts)) if self._is_usable(i)], np.int64)
        if not len(usable):
            raise ValueError("no utterance is aligned, short enough and long enough for its phones")
        self._num_usable = len(usable)
        self.usable = np.concatenate(
            [usable[usable < first]] * config.first_times + [usable[usable >= first]]
        )

    def usage(self) -> str:
        """How much is trained on."""
        hours = self._lengths[np.unique(self.usable)].sum() / 16_000 / 3600
        return f"{self._num_usable:,} of {len(self._starts):,} utterances, {hours:.1f} h"

    def targets(self, index: int) -> np.ndarray:
        return self._targets[index]

    def _is_usable(self, index: int) -> bool:
        targets = self._targets[index]
        if not len(targets) or self._frames[index] > self.config.longest_s * 100:
            return False
        needed = len(targets) + int((targets[1:] == targets[:-1]).sum())
        return bool(needed <= self._frames[index] / self.config.augment.speed[1] // self.config.stride)

    def epoch(self, number: int, skip: int = 0, process: int = 0, processes: int = 1) -> Iterator[Batch]:
        """As `BatchSource.epoch`."""
        rng = np.random.default_rng([self.config.seed, number])
        speeds = rng.uniform(*self.config.augment.speed, len(self.usable))
        lengths = self._frames[self.usable] / speeds
        groups = like_lengths(lengths, self.config.seconds * 100, rng)
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
            seconds=float((self._lengths[chosen] / speeds).sum() / 16_000),
        )  # fmt: skip

    def _read(self, chosen: np.ndarray, rates: Tensor) -> tuple[Tensor, Tensor]:
        starts, lengths = (self._on_device(of[chosen]) for of in (self._starts, self._lengths))
        return read_at_speed(self._pool, starts, lengths, rates)

    def _babble(self, num_samples: int, dice: Dice) -> Tensor:
        """(batch, samples) of several utterances at once, each over and over."""
        places = torch.arange(num_samples, device=self.device)
        starts, lengths = (self._on_device(of[self.usable]) for of in (self._starts, self._lengths))
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

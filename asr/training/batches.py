"""Batches of prepared speech: equal seconds of audio in each, lengths alike, augmented."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asr.model.features import FRAMES_PER_SECOND, NUM_MELS, normalize_features
from asr.training.alignment import STATES_PER_PHONE
from asr.training.feature_augment import (
    FeatureAugmentConfig,
    babble,
    limit_band,
    mix_noise,
    stationary_noise,
    warp_frequencies,
)
from asr.training.loop import share_of
from asr.training.prepared import UNLABELLED, Alignments, Prepared

_NOT_ALIGNED, _TOO_LONG, _TOO_SHORT = "not aligned", "over {:g} s", "too short for their phones"


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """`versions` of the features and how often each is taken; SpecAugment (Park et al. 2019) with `mel_masks`
    masks of up to `mel_width` mels and a mask of up to `time_width` feature frames for each `time_every` of
    them. Each utterance comes in `copies` that differ in their masks alone; `seconds` of a batch and of the
    audio passed count all of them. Utterances over `longest_s` are left out."""

    seconds: float = 120.0
    versions: tuple[tuple[str, float], ...] = (
        ("1.00", 0.2), ("0.90", 0.2), ("1.10", 0.2), ("noisy-0.95", 0.2), ("noisy-1.05", 0.2),
    )  # fmt: skip
    mel_masks: int = 2
    mel_width: int = 12
    time_every: int = 150
    time_width: int = 18
    copies: int = 1
    augment: FeatureAugmentConfig = field(default_factory=FeatureAugmentConfig)
    longest_s: float = 20.0
    stride: int = 3
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class Batch:
    """`features` (batch, feature frames, mels) float32, normalised, zero beyond `lengths` (batch,).
    `targets` (batch, phones) int64 and `target_lengths`. For each encoder frame `classes`, `left` and
    `right`: state class, phone before and after, int64 (batch, frames), -1 beyond the end and where
    there is no label. `seconds` of
    audio, without padding. Where there are copies: the first of all utterances, the second of all, ..."""

    features: Tensor
    lengths: Tensor
    targets: Tensor
    target_lengths: Tensor
    classes: Tensor
    left: Tensor
    right: Tensor
    seconds: float

    def to(self, device: torch.device) -> Batch:
        moved: dict[str, Any] = {
            field.name: getattr(self, field.name).to(device)
            for field in fields(self)
            if field.name != "seconds"
        }
        return replace(self, **moved)


class BatchSource:
    """All utterances that could be aligned, in batches. An epoch's batches depend on seed and epoch alone."""

    def __init__(self, prepared: Prepared, alignments: Alignments, config: BatchConfig) -> None:
        """Raises ValueError for alignments of other features or texts, and where nothing is left to train
        on."""
        self.prepared, self.alignments, self.config = prepared, alignments, config
        self.versions = [(name, p) for name, p in config.versions if name in prepared.features]
        if not self.versions:
            raise ValueError(f"none of the versions {[v for v, _ in config.versions]} was prepared")
        self.starts = np.cumsum([0, *(self._length(i, "1.00") for i in range(len(prepared.utterances)))])
        alignments.check_of(prepared)
        self.left, self.right = neighbours(alignments.classes, self.starts)
        obstacles = [self._obstacle(i) for i in range(len(prepared.utterances))]
        self.usable = np.array([i for i, obstacle in enumerate(obstacles) if not obstacle], np.int64)
        self._left_out = Counter(obstacles)
        if not len(self.usable):
            raise ValueError(
                f"no utterance is aligned, short enough and long enough for its phones: {self.usage()}"
            )

    def usage(self) -> str:
        """How many utterances are trained on, and why the others are not."""
        return usage(len(self.prepared.utterances), self._left_out, self.config.longest_s)

    def targets(self, index: int) -> np.ndarray:
        return self.alignments.targets(index)

    def _length(self, index: int, version: str) -> int:
        first, last = self.prepared.utterances[index].spans[version]
        return last - first

    def _obstacle(self, index: int) -> str:
        shortest = min(self._length(index, name) for name, _ in self.versions) // self.config.stride
        return obstacle(self.targets(index), self._length(index, "1.00"), shortest, self.config.longest_s)

    def epoch(self, number: int, skip: int = 0, process: int = 0, processes: int = 1) -> Iterator[Batch]:
        """The batches of an epoch in random order, after the first `skip`: those of one of several processes
        (`share_of`).

        Buckets by duration, as lhotse's dynamic sampler makes them while it reads on; here all lengths are
        known, so the whole epoch is sorted, from the seed and its number alone, and a run that goes on has
        nothing to read again.
        """
        rng = np.random.default_rng([self.config.seed, number])
        names = [name for name, _ in self.versions]
        shares = np.array([p for _, p in self.versions])
        version = rng.choice(len(names), len(self.usable), p=shares / shares.sum())
        lengths = np.array([self._length(i, names[v]) for i, v in zip(self.usable, version, strict=True)])
        groups = like_lengths(lengths, self.config.seconds * 100 / self.config.copies, rng)
        for k in share_of(rng.permutation(len(groups)), skip, process, processes):
            chosen = [(int(self.usable[i]), names[version[i]]) for i in groups[k]]
            yield self._collate(chosen, np.random.default_rng([self.config.seed, number, int(k)]))

    def _collate(self, chosen: list[tuple[int, str]], rng: np.random.Generator) -> Batch:
        lengths = [self._length(i, version) for i, version in chosen]
        stride = self.config.stride
        frames = -(-max(lengths) // stride)
        features = np.zeros((len(chosen), max(lengths), NUM_MELS), np.float32)
        targets = [self.alignments.targets(i) for i, _ in chosen]
        padded = np.zeros((len(chosen), max(map(len, targets))), np.int64)
        labels = np.full((3, len(chosen), frames), -1, np.int64)
        for row, (i, version) in enumerate(chosen):
            features[row, : lengths[row]] = self._augmented(self.prepared.frames(i, version), rng)
            padded[row, : len(targets[row])] = targets[row]
            # The frame of the original speed that is in the middle of each encoder frame.
            source = (
                (np.arange(-(-lengths[row] // stride)) * stride + 1) * float(version.split("-")[-1])
            ).round()
            source = self.starts[i] + np.minimum(source.astype(np.int64), self._length(i, "1.00") - 1)
            for kind, of_frame in enumerate((self.alignments.classes, self.left, self.right)):
                labels[kind, row, : len(source)] = of_frame[source]
        labels[labels == UNLABELLED] = -1
        normal = normalize_features(torch.from_numpy(features), torch.tensor(lengths))
        copies = self.config.copies
        normal = normal.repeat(copies, 1, 1)
        self._mask(normal, lengths * copies, rng)
        classes, left, right = torch.from_numpy(labels).repeat(1, copies, 1)
        return Batch(
            features=normal,
            lengths=torch.tensor(lengths * copies),
            targets=torch.from_numpy(padded).repeat(copies, 1),
            target_lengths=torch.tensor([len(t) for t in targets] * copies),
            classes=classes,
            left=left,
            right=right,
            seconds=sum(lengths) * copies / 100,
        )

    def _augmented(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        config, features = self.config.augment, frames.astype(np.float32)
        if rng.random() < config.warp_probability:
            features = warp_frequencies(features, rng.uniform(*config.warp))
        if rng.random() < config.noise_probability:
            if rng.random() < 0.5:
                others = rng.choice(self.usable, config.babble)
                voices = [
                    self.prepared.frames(int(i), self.versions[0][0]).astype(np.float32) for i in others
                ]
                noise = babble(voices, len(features), rng)
            else:
                noise = stationary_noise(len(features), rng)
            features = mix_noise(features, noise, rng.uniform(*config.snr_db))
        # Asked for last: without it no other number is another.
        if config.narrow_probability and rng.random() < config.narrow_probability:
            low_hz, high_hz = (rng.uniform(*limits) for limits in config.narrow)
            features = limit_band(features, low_hz, high_hz, rng.uniform(*config.floor_db), rng)
        return features

    def _mask(self, features: Tensor, lengths: list[int], rng: np.random.Generator) -> None:
        """SpecAugment in place; normalised features have mean 0, so a mask is 0."""
        config = self.config
        for row, length in enumerate(lengths):
            for _ in range(config.mel_masks):
                width = int(rng.integers(config.mel_width + 1))
                first = int(rng.integers(NUM_MELS - width + 1))
                features[row, :, first : first + width] = 0
            for _ in range(max(1, length // config.time_every)):
                width = int(rng.integers(config.time_width + 1))
                first = int(rng.integers(max(1, length - width)))
                features[row, first : first + width] = 0


def obstacle(targets: np.ndarray, num_frames: int, shortest: int, longest_s: float) -> str:
    """Why an utterance of these phones and feature frames cannot be trained on, empty where it can:
    `shortest` encoder frames are what its fastest version has."""
    if not len(targets):
        return _NOT_ALIGNED
    if num_frames > longest_s * FRAMES_PER_SECOND:
        return _TOO_LONG
    needed = len(targets) + int((targets[1:] == targets[:-1]).sum())
    return "" if needed <= shortest else _TOO_SHORT


def usage(total: int, left_out: Counter[str], longest_s: float) -> str:
    """How many of `total` utterances are trained on, and why the others are not; `left_out` counts the
    obstacles, the empty one too."""
    said = f"{left_out['']:,} of {total:,} utterances"
    if left_out[""] == total:
        return said
    reasons = (f"{left_out[reason]:,} {reason}" for reason in (_NOT_ALIGNED, _TOO_LONG, _TOO_SHORT))
    return f"{said} ({', '.join(reasons)})".format(longest_s)


def like_lengths(lengths: np.ndarray, most: float, rng: np.random.Generator) -> list[list[int]]:
    """Utterances of these lengths in groups of like ones, each with `most` frames, padding included, or one
    utterance. Sorted with some disorder, so that batches differ from epoch to epoch."""
    order = np.argsort(lengths * rng.uniform(0.93, 1.07, len(lengths)), kind="stable")
    groups: list[list[int]] = [[]]
    longest = 0.0
    for i in order:
        longest = max(longest, lengths[i])
        if groups[-1] and longest * (len(groups[-1]) + 1) > most:
            groups.append([])
            longest = lengths[i]
        groups[-1].append(i)
    return groups


def neighbours(classes: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each frame the phone id before and after its own phone (0 at the ends of an utterance and of what
    is known), uint8, or UNLABELLED where the frame is.

    `classes` (frames,) of all utterances, which begin at `starts` (the last one is the end).
    """
    if not len(classes):
        return classes, classes
    phone, state = classes // STATES_PER_PHONE, classes % STATES_PER_PHONE
    begins = np.ones(len(classes), bool)
    begins[1:] = (phone[1:] != phone[:-1]) | (state[1:] < state[:-1])
    begins[starts[:-1]] = True
    segment = np.cumsum(begins) - 1
    phones = np.where(classes[begins] == UNLABELLED, 0, phone[begins])
    first = np.isin(np.flatnonzero(begins), starts[:-1])
    before = np.where(first, 0, np.roll(phones, 1))
    after = np.where(np.roll(first, -1), 0, np.roll(phones, -1))
    unknown = classes == UNLABELLED
    of_frames = [np.where(unknown, UNLABELLED, of_segment[segment]) for of_segment in (before, after)]
    return of_frames[0].astype(np.uint8), of_frames[1].astype(np.uint8)

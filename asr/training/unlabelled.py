"""Batches of prepared speech without labels: whole recordings, cut where they are long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asr.model.features import FRAMES_PER_SECOND, NUM_MELS, normalize_features
from asr.training.batches import like_lengths
from asr.training.loop import share_of
from asr.training.prepared import Prepared


@dataclass(frozen=True, kw_only=True)
class UnlabelledConfig:
    """`seconds` of audio a batch, padding included. Recordings longer than `longest_s` are cut into equal
    pieces, shorter ones than `shortest_s` are left out."""

    seconds: float = 120.0
    longest_s: float = 20.0
    shortest_s: float = 1.0
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class UnlabelledBatch:
    """`features` (batch, feature frames, mels) float32, normalised, zero beyond `lengths` (batch,); `seconds`
    of audio, without padding."""

    features: Tensor
    lengths: Tensor
    seconds: float

    def to(self, device: torch.device) -> UnlabelledBatch:
        return UnlabelledBatch(
            features=self.features.to(device), lengths=self.lengths.to(device), seconds=self.seconds
        )


@dataclass(frozen=True)
class _Piece:
    """Part `part` of `parts` of an utterance of a folder."""

    folder: int
    utterance: int
    part: int
    parts: int


class UnlabelledSource:
    """The speech of several folders of recipes/prepare.py; transcripts are not looked at. In each epoch every
    piece comes once, in one of the versions (speeds, noise) that its folder has. An epoch's batches depend on
    seed and epoch alone."""

    def __init__(self, folders: Sequence[Prepared], config: UnlabelledConfig) -> None:
        """Raises ValueError where nothing is left to train on."""
        self.folders, self.config = folders, config
        self.versions = [list(folder.features) for folder in folders]
        self.pieces = [piece for f in range(len(folders)) for piece in self._cut(f)]
        if not self.pieces:
            raise ValueError(f"no recording of {config.shortest_s:g} s or longer: check recipes/prepare.py")

    def _cut(self, folder: int) -> Iterator[_Piece]:
        longest = self.config.longest_s * FRAMES_PER_SECOND
        shortest = self.config.shortest_s * FRAMES_PER_SECOND
        for i, utterance in enumerate(self.folders[folder].utterances):
            lengths = [last - first for first, last in utterance.spans.values()]
            if min(lengths) >= shortest:
                parts = int(np.ceil(max(lengths) / longest))
                yield from (_Piece(folder, i, part, parts) for part in range(parts))

    @property
    def hours(self) -> float:
        """Of one epoch, at the speed of the first version."""
        lengths = (
            last - first
            for folder, names in zip(self.folders, self.versions, strict=True)
            for utterance in folder.utterances
            for first, last in [utterance.spans[names[0]]]
        )
        return sum(lengths) / FRAMES_PER_SECOND / 3600

    def _frames(self, piece: _Piece, version: str) -> np.ndarray:
        frames = self.folders[piece.folder].frames(piece.utterance, version)
        bounds = len(frames) * np.array([piece.part, piece.part + 1]) // piece.parts
        return frames[bounds[0] : bounds[1]]

    def epoch(
        self, number: int, skip: int = 0, process: int = 0, processes: int = 1
    ) -> Iterator[UnlabelledBatch]:
        """The batches of an epoch in random order, after the first `skip`: those of one of several processes
        (`share_of`)."""
        rng = np.random.default_rng([self.config.seed, number])
        names = [
            self.versions[piece.folder][rng.integers(len(self.versions[piece.folder]))]
            for piece in self.pieces
        ]
        chosen = list(zip(self.pieces, names, strict=True))
        lengths = np.array([len(self._frames(piece, name)) for piece, name in chosen])
        groups = like_lengths(lengths, self.config.seconds * FRAMES_PER_SECOND, rng)
        for k in share_of(rng.permutation(len(groups)), skip, process, processes):
            yield self._collate([self._frames(*chosen[i]) for i in groups[k]])

    def _collate(self, frames: list[np.ndarray]) -> UnlabelledBatch:
        lengths = torch.tensor([len(f) for f in frames])
        features = np.zeros((len(frames), int(lengths.max()), NUM_MELS), np.float32)
        for row, f in zip(features, frames, strict=True):
            row[: len(f)] = f
        normal = normalize_features(torch.from_numpy(features), lengths)
        seconds = float(lengths.sum()) / FRAMES_PER_SECOND
        return UnlabelledBatch(features=normal, lengths=lengths, seconds=seconds)

"""Monophone Gaussian mixtures: the first model, that needs no alignment to start from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

NUM_CEPSTRA = 13
_MIN_FRAMES = 20  # a Gaussian with fewer frames keeps its parameters
_FLOOR = 0.01  # of the global variance


def cepstra(log_mel: np.ndarray) -> np.ndarray:
    """Log-mel (frames, mels) -> MFCCs less their mean, first and second differences, float32 (frames, 39)."""
    static = scipy.fft.dct(log_mel.astype(np.float32), norm="ortho", axis=1)[:, :NUM_CEPSTRA]
    static -= static.mean(0)
    first = _difference(static)
    return np.concatenate([static, first, _difference(first)], 1).astype(np.float32)


def _difference(x: np.ndarray) -> np.ndarray:
    """Regression over two frames on each side (HTK book, 5.9)."""
    padded = np.pad(x, ((2, 2), (0, 0)), mode="edge")
    return (padded[3:-1] - padded[1:-3] + 2 * (padded[4:] - padded[:-4])) / 10


@dataclass(frozen=True, kw_only=True)
class Mixtures:
    """Diagonal Gaussian mixtures, each class with as many. means, variances (classes, Gaussians, dims),
    log_weights (classes, Gaussians)."""

    means: np.ndarray
    variances: np.ndarray
    log_weights: np.ndarray

    @classmethod
    def from_labels(cls, features: np.ndarray, labels: np.ndarray, num_classes: int) -> Mixtures:
        """One Gaussian a class. features (frames, dims), labels (frames,)."""
        mean, variance = features.mean(0), features.var(0)
        start = cls(
            means=np.tile(mean, (num_classes, 1, 1)),
            variances=np.tile(variance, (num_classes, 1, 1)),
            log_weights=np.zeros((num_classes, 1), np.float32),
        )
        return start.update(features, labels)

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(frames, dims) -> log-likelihoods float32 (frames, classes)."""
        joint = self._joint(features)
        best = joint.max(2)
        return best + np.log(np.exp(joint - best[:, :, None]).sum(2))

    def _joint(self, features: np.ndarray) -> np.ndarray:
        """log p(frame, Gaussian | class), float32 (frames, classes, Gaussians): one matrix product."""
        precision = 1 / self.variances
        constant = self.log_weights - 0.5 * (
            np.log(2 * np.pi * self.variances).sum(2) + (self.means**2 * precision).sum(2)
        )
        dims = features.shape[1]
        weights = np.concatenate(
            [(self.means * precision).reshape(-1, dims), -0.5 * precision.reshape(-1, dims)], 1
        )
        joint = np.concatenate([features, features**2], 1) @ weights.T.astype(np.float32)
        return joint.reshape(len(features), *constant.shape) + constant.astype(np.float32)

    def update(self, features: np.ndarray, labels: np.ndarray) -> Mixtures:
        """One EM step with the class of every frame given."""
        means, variances, weights = self.means.copy(), self.variances.copy(), self.log_weights.copy()
        floor = _FLOOR * features.var(0)
        order = np.argsort(labels, kind="stable")
        bounds = np.searchsorted(labels[order], np.arange(len(means) + 1))
        for c in range(len(means)):
            x = features[order[bounds[c] : bounds[c + 1]]]
            if len(x) < _MIN_FRAMES:
                continue
            one = Mixtures(
                means=means[c : c + 1], variances=variances[c : c + 1], log_weights=weights[c : c + 1]
            )
            joint = one._joint(x)[:, 0]
            posterior = np.exp(joint - joint.max(1, keepdims=True))
            posterior /= posterior.sum(1, keepdims=True)
            count = posterior.sum(0)
            enough = count >= _MIN_FRAMES
            mean = posterior.T @ x / np.maximum(count, 1)[:, None]
            variance = posterior.T @ x**2 / np.maximum(count, 1)[:, None] - mean**2
            means[c][enough] = mean[enough]
            variances[c][enough] = np.maximum(variance, floor)[enough]
            weights[c] = np.log(np.maximum(count, 1) / np.maximum(count, 1).sum())
        return Mixtures(means=means, variances=variances, log_weights=weights)

    def split(self) -> Mixtures:
        """Twice as many Gaussians, each pair a little apart."""
        step = 0.2 * np.sqrt(self.variances)
        return Mixtures(
            means=np.concatenate([self.means - step, self.means + step], 1),
            variances=np.tile(self.variances, (1, 2, 1)),
            log_weights=np.tile(self.log_weights - np.log(2), (1, 2)).astype(np.float32),
        )

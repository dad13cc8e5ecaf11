"""Discrete targets for wav2vec 2.0: a product quantizer trained through the Gumbel softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig:
    """`groups` codebooks of `entries` vectors, whose concatenation has `code_dim` numbers."""

    groups: int = 2
    entries: int = 320
    code_dim: int = 256


@dataclass(frozen=True)
class Quantized:
    """`vectors` (frames, out_dim); `codes` int64 (frames, groups), the entry taken from each codebook;
    `perplexity` scalar, the effective number of entries in use, summed over the groups."""

    vectors: Tensor
    codes: Tensor
    perplexity: Tensor


class GumbelQuantizer(nn.Module):
    """Product quantizer of Baevski et al. 2020, section 2 (Quantization module).

    A linear layer scores the entries of each codebook; one entry of each is taken, all are joined and turned
    into the target by another linear layer. While training the entry is drawn by the Gumbel softmax (Jang et
    al. 2016) and gradients go straight through the choice (equation 1); else the best entry is taken.
    """

    def __init__(self, config: QuantizerConfig, dim: int, out_dim: int) -> None:
        """Raises ValueError where the code's size is not a multiple of the groups."""
        super().__init__()
        if config.code_dim % config.groups:
            raise ValueError(f"code_dim {config.code_dim} must be a multiple of the {config.groups} groups")
        self.config = config
        self.scores = nn.Linear(dim, config.groups * config.entries)
        self.codebooks = nn.Parameter(
            torch.rand(config.groups, config.entries, config.code_dim // config.groups)
        )
        self.out = nn.Linear(config.code_dim, out_dim)
        # Scores of deviation 1: the authors' start, of deviation sqrt(dim), leaves few entries a share that a
        # gradient could move, and needs many more updates than we have.
        nn.init.normal_(self.scores.weight, std=dim**-0.5)
        nn.init.zeros_(self.scores.bias)

    def forward(self, frames: Tensor, temperature: float) -> Quantized:
        """(frames, dim) -> Quantized. `temperature` > 0 matters only while training."""
        groups, entries = self.config.groups, self.config.entries
        scores = self.scores(frames).float().view(len(frames), groups, entries)
        if self.training:
            chosen = F.gumbel_softmax(scores, tau=temperature, hard=True)
            shares = scores.softmax(2)
        else:
            chosen = F.one_hot(scores.argmax(2), entries).to(scores.dtype)
            shares = chosen
        vectors = torch.einsum("ngv,gvd->ngd", chosen, self.codebooks).flatten(1)
        return Quantized(self.out(vectors), chosen.argmax(2), perplexity(shares.mean(0)))


def perplexity(shares: Tensor) -> Tensor:
    """Distributions (groups, entries) -> the exponential of each one's entropy, summed: scalar."""
    # The small number keeps the gradient finite for an entry that no frame gives a share.
    return (-(shares * (shares + 1e-9).log()).sum(1)).exp().sum()


def diversity_loss(perplexity: Tensor, config: QuantizerConfig) -> Tensor:
    """Share of the entries that are not in use, 0 to 1.

    Baevski et al. 2020, section 3.2 (Diversity loss) asks for a high entropy of the averaged choice, without
    noise and temperature. Equation 4 is the entropy itself; this is what the authors' code minimises, which
    has the same optimum.
    """
    total = config.groups * config.entries
    return (total - perplexity) / total


@dataclass(frozen=True, kw_only=True)
class TemperatureSchedule:
    """Gumbel temperature, falling geometrically from `start` to `end` and constant for the last part.

    Baevski et al. 2020, section 4.2: from 2 by a factor of 0.999995 each update, not below 0.5, which is
    reached after 69 % of the base model's 400,000 updates. Counted in shares of the training here, so that
    short trainings see the whole of it.
    """

    start: float = 2.0
    end: float = 0.5
    reached_at: float = 0.69

    def __call__(self, progress: float) -> float:
        """Share of the training that is done, 0 to 1 -> temperature."""
        fallen = min(progress / self.reached_at, 1.0)
        return math.exp((1 - fallen) * math.log(self.start) + fallen * math.log(self.end))

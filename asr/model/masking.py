"""Span masking: which encoder frames are hidden from the blocks and must be guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Each frame begins a masked span of `span` frames with probability `start`; spans may overlap.

    The default hides 49 % of the frames, as wav2vec 2.0 does (Baevski et al. 2020, 3.1 and 4.2: 0.065 and 10
    frames of 20 ms), with spans of as many milliseconds in frames of 30 ms.
    """

    start: float = 0.092
    span: int = 7


def span_mask(lengths: Sequence[int], config: MaskConfig, rng: np.random.Generator) -> Tensor:
    """Frames of each utterance -> bool (batch, longest), true where masked, never beyond an utterance's end.

    Baevski et al. 2020, section 3.1: a share `start` of the frames, drawn without replacement, are where
    spans begin. As in the authors' code the number of spans is rounded up or down at random, and a span ends
    within its utterance. Differs for short utterances: at least one span, of at most half the utterance.
    """
    mask = np.zeros((len(lengths), max(lengths, default=0)), bool)
    for row, length in zip(mask, lengths, strict=True):
        span = min(config.span, length // 2)
        if span == 0:
            continue
        num_starts = length - span + 1
        num_spans = min(max(1, int(config.start * length + rng.random())), num_starts)
        starts = rng.choice(num_starts, num_spans, replace=False)
        row[(starts[:, None] + np.arange(span)).ravel()] = True
    return torch.from_numpy(mask)


def unseen(mask: Tensor, lengths: Tensor) -> Tensor:
    """Masked frames whose sound no visible frame shows: bool (batch, frames), (batch,) -> bool as the first.

    Each frame of the encoder's stem also sees the sound of the frame before and of the one after, so the rim
    of a masked span can be read from beside it, and only its inside is worth guessing.
    """
    inside = torch.arange(mask.shape[1], device=mask.device) < lengths[:, None]
    covered = F.pad(mask | ~inside, (1, 1), value=True)
    return mask & covered[:, :-2] & covered[:, 2:]

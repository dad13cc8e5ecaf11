"""The encoder: log-mel features to phone log-probabilities, 33 frames a second.

A residual time-delay network: everything that costs time is a matrix product over channels-last arrays, which
keeps the matrix units of a processor as busy as those of a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.model.arithmetic import Int8Linear
from asr.model.features import FRAMES_PER_SECOND, NUM_MELS


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes. `stride` feature frames make one encoder frame; a block sees `dilation` frames to each side."""

    dim: int = 512
    bottleneck: int = 256
    stride: int = 3
    dilations: tuple[int, ...] = (1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)
    statistics_after: tuple[int, ...] = (3,)
    statistics_dim: int = 64

    @classmethod
    def of_size(cls, dim: int, bottleneck: int, blocks: int) -> EncoderConfig:
        """A third of the blocks with each dilation, 1 to 3; statistics after the first quarter. Raises
        ValueError for fewer than one of anything."""
        if min(dim, bottleneck, blocks) < 1:
            raise ValueError(f"an encoder cannot have {min(dim, bottleneck, blocks)} channels or blocks")
        dilations = tuple(1 + 3 * i // blocks for i in range(blocks))
        after = (max(1, blocks // 4),)
        return cls(dim=dim, bottleneck=bottleneck, dilations=dilations, statistics_after=after)

    @property
    def frame_s(self) -> float:
        return self.stride / FRAMES_PER_SECOND


class Encoder(nn.Module):
    """Normalised log-mel features -> encoder frames (batch, frames, dim)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        # Each encoder frame sees its own `stride` feature frames and as many before and after.
        self.stem = nn.Linear(3 * config.stride * NUM_MELS, config.dim)
        self.blocks = nn.ModuleList(
            Block(config.dim, config.bottleneck, dilation) for dilation in config.dilations
        )
        self.statistics = nn.ModuleDict(
            {str(i): UtteranceStatistics(config.dim, config.statistics_dim) for i in config.statistics_after}
        )
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, feature frames, mels), zero beyond (batch,) lengths -> (batch, frames, dim), (batch,)."""
        lengths = self.output_lengths(lengths)
        return self.context(self.frames(features), lengths), lengths

    def frames(self, features: Tensor) -> Tensor:
        """(batch, feature frames, mels), zero beyond their lengths -> the stem's output (batch, frames,
        dim)."""
        stride = self.config.stride
        frames = -(-features.shape[1] // stride)
        padded = F.pad(features, (0, 0, stride, (frames + 1) * stride - features.shape[1]))
        stacked = padded.reshape(len(features), frames + 2, stride * features.shape[2])
        return self.stem(torch.cat([stacked[:, :-2], stacked[:, 1:-1], stacked[:, 2:]], 2))

    def context(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The stem's output (batch, frames, dim), frames of each (batch,) -> what the blocks make of it."""
        return self.norm(self.depths(x, lengths)[-1])

    def depths(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """As `context`, before the norm: after half of the blocks, and after all of them."""
        mask = (torch.arange(x.shape[1], device=x.device) < lengths[:, None]).unsqueeze(-1).to(x.dtype)
        middle = x
        for i, block in enumerate(self.blocks, 1):
            x = block(x, mask)
            if str(i) in self.statistics:
                x = self.statistics[str(i)](x, mask)
            if i == len(self.blocks) // 2:
                middle = x
        return middle, x

    def to_int8(self) -> None:
        """From now on the blocks compute in 8 bits; they cannot be trained any more."""
        self.blocks = nn.ModuleList(Int8Block(b) if isinstance(b, Block) else b for b in self.blocks)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Encoder frames of that many feature frames."""
        return torch.div(lengths + self.config.stride - 1, self.config.stride, rounding_mode="floor")


class Block(nn.Module):
    """x + linear(relu(dilated convolution(norm(x)))), with a bottleneck between the two."""

    def __init__(self, dim: int, bottleneck: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.dropout = 0.0  # of the bottleneck while training; a recipe may set it
        self.norm = nn.LayerNorm(dim)
        # (bottleneck, 3 * dim): a plain matrix, for the optimiser as for the convolution.
        self.taps = nn.Parameter(torch.empty(bottleneck, 3 * dim))
        self.taps_bias = nn.Parameter(torch.zeros(bottleneck))
        self.out = nn.Linear(bottleneck, dim)
        nn.init.normal_(self.taps, std=(3 * dim) ** -0.5)
        nn.init.normal_(self.out.weight, std=0.5 * bottleneck**-0.5)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, frames, dim), mask (batch, frames, 1) of ones and zeros -> (batch, frames, dim)."""
        h = self.norm(x) * mask
        h = F.relu(self._convolve_as_product(h) if h.is_cuda else self._convolve(h))
        if self.training and self.dropout:
            h = F.dropout(h, self.dropout)
        return x + self.out(h)

    def _convolve(self, h: Tensor) -> Tensor:
        # A 2-d convolution of height 1 in channels-last layout: no copy on the way in or out.
        kernel = self.taps.view(len(self.taps), 1, 3, h.shape[2]).permute(0, 3, 1, 2)
        h = F.conv2d(
            h.transpose(1, 2).unsqueeze(2), kernel, self.taps_bias,
            padding=(0, self.dilation), dilation=(1, self.dilation),
        )  # fmt: skip
        return h.squeeze(2).transpose(1, 2)

    def _convolve_as_product(self, h: Tensor) -> Tensor:
        """The same for a GPU, whose library plans a convolution for each new shape of a batch, and has a plan
        for any matrix product."""
        if torch.is_autocast_enabled(h.device.type):
            h = h.to(torch.get_autocast_dtype(h.device.type))
        return F.linear(_with_neighbours(h, self.dilation), self.taps, self.taps_bias)


class Int8Block(nn.Module):
    """What a block does when it is not trained, in 8 bits."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.dilation, self.norm = block.dilation, block.norm
        self.taps = Int8Linear(block.taps, block.taps_bias)
        self.out = Int8Linear(block.out.weight, block.out.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """As a block's; the scales of what is multiplied are those of the batch."""
        h = self.taps(_with_neighbours(self.norm(x) * mask, self.dilation))
        return x + self.out(F.relu_(h))


def _with_neighbours(h: Tensor, step: int) -> Tensor:
    """(batch, frames, dim) -> (batch, frames, 3 * dim): the frame `step` before, itself, that after it."""
    padded = F.pad(h, (0, 0, step, step))
    return torch.cat([padded[:, : h.shape[1]], h, padded[:, 2 * step :]], 2)


class UtteranceStatistics(nn.Module):
    """Mean and deviation of each channel over the utterance scale and shift all channels.

    They tell who speaks, and where. A squeeze-and-excitation (Hu et al. 2018) with the deviation beside the
    mean and a shift beside the scale.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(2 * dim, hidden)
        self.excite = nn.Linear(hidden, 2 * dim)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, frames, dim), mask (batch, frames, 1) -> (batch, frames, dim)."""
        weights = (mask / mask.sum(1, keepdim=True).clamp_min(1)).float()
        mean = (x.float() * weights).sum(1)
        variance = (x.float().square() * weights).sum(1) - mean.square()
        statistics = torch.cat([mean, (variance.clamp_min(0) + 1e-5).sqrt()], 1)
        scale, shift = self.excite(F.relu(self.squeeze(statistics))).chunk(2, 1)
        return x * (1 + scale).unsqueeze(1).to(x.dtype) + shift.unsqueeze(1).to(x.dtype)


class PhoneModel(nn.Module):
    """Encoder and CTC head.

    With `auxiliary` also the heads for training that name the state of each frame and its neighbour phones.
    `phone_lm` (tokens, tokens, tokens) float32 on the CPU, natural log: the n-gram of a network that was
    trained with CTC-CRF, which `decode_phones` needs.
    """

    phone_lm: Tensor | None = None

    def __init__(self, config: EncoderConfig, num_tokens: int, auxiliary: bool = False) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.ctc = nn.Linear(config.dim, num_tokens)
        self.frame = nn.Linear(config.dim, 3 * num_tokens + 2 * num_tokens) if auxiliary else None

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised features, lengths -> log-probs (batch, frames, tokens) float32, natural log, lengths."""
        hidden, lengths = self.encoder(features, lengths)
        return F.log_softmax(self.ctc(hidden).float(), 2), lengths

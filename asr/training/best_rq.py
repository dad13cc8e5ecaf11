"""BEST-RQ: name the random code of each masked frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.model.encoder import Encoder
from asr.model.features import NUM_MELS
from asr.model.masking import MaskConfig, span_mask, unseen


@dataclass(frozen=True, kw_only=True)
class BestRqConfig:
    """As Chiu et al. 2022, section 4.1.1: spans of 400 ms that hide a third, 8192 codes of 16 numbers."""

    mask: MaskConfig = field(default_factory=lambda: MaskConfig(start=0.03, span=13))
    codes: int = 8192
    code_dim: int = 16
    seed: int = 1  # of the codes, which are never trained


class RandomProjectionQuantizer(nn.Module):
    """Log-mel of an encoder frame to the number of a code; nothing in it is trained.

    Chiu et al. 2022, section 3.1 (equation 1): the frame is projected by a random matrix and takes the code
    that is nearest once both have length one. The matrix is Xavier-initialised, the codes are normal. The
    paper takes mean and deviation out of the input, else few codes are taken. Beside `normalize_features`
    each frame's own mean goes here: else the codes of speech mostly tell how loud it is (the ten most
    frequent of 8192 took a third of all frames, instead of a tenth).
    """

    projection: Tensor
    codes: Tensor

    def __init__(self, config: BestRqConfig, stride: int) -> None:
        super().__init__()
        self.stride = stride
        generator = torch.Generator().manual_seed(config.seed)
        projection = torch.empty(stride * NUM_MELS, config.code_dim)
        nn.init.xavier_uniform_(projection, generator=generator)
        codes = torch.randn(config.codes, config.code_dim, generator=generator)
        self.register_buffer("projection", projection)
        self.register_buffer("codes", F.normalize(codes, dim=1))

    def forward(self, features: Tensor) -> Tensor:
        """Normalised (batch, feature frames, mels) -> codes int64 (batch, encoder frames). Beyond the end of
        an utterance they mean nothing."""
        with torch.autocast(features.device.type, enabled=False):
            missing = -features.shape[1] % self.stride
            stacked = F.pad(features.float(), (0, 0, 0, missing)).unflatten(1, (-1, self.stride)).flatten(2)
            stacked = stacked - stacked.mean(2, keepdim=True)
            # Of unit vectors the nearest is that with the greatest product, and how long the projected frame
            # is does not matter.
            return (stacked @ self.projection @ self.codes.T).argmax(2)


class BestRq(nn.Module):
    """The objective of Chiu et al. 2022, section 3, on our own encoder: cross-entropy of the masked frames'
    codes after one linear layer.

    Differs in how frames are hidden: the paper puts noise in their log-mel, here they are replaced by a
    learned vector at the stem's output, and those that a visible neighbour gives away are not asked
    (`unseen`).
    """

    def __init__(self, config: BestRqConfig, dim: int, stride: int) -> None:
        super().__init__()
        self.config = config
        self.mask_vector = nn.Parameter(torch.rand(dim))
        self.quantizer = RandomProjectionQuantizer(config, stride)
        self.name = nn.Linear(dim, config.codes)

    def forward(
        self, encoder: Encoder, features: Tensor, lengths: Tensor, progress: float, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Normalised log-mel (batch, feature frames, mels), lengths (batch,) -> loss (scalar, natural log, a
        guessed frame) and what to report of it. `progress` is not used: nothing here changes with time."""
        frames = encoder.output_lengths(lengths)
        stem = encoder.frames(features)
        mask = span_mask(frames.tolist(), self.config.mask, rng).to(stem.device)
        guessed = unseen(mask, frames)
        masked = torch.where(mask.unsqueeze(2), self.mask_vector.to(stem.dtype), stem)
        logits = self.name(encoder.context(masked, frames)[guessed]).float()
        codes = self.quantizer(features)[guessed]
        loss = F.cross_entropy(logits, codes)
        report = {
            "codes": loss.detach(),
            "right": (logits.argmax(1) == codes).float().mean(),
            "kinds": codes.unique().numel() / torch.tensor(float(max(len(codes), 1))),
        }
        return loss, report

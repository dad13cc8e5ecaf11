"""wav2vec 2.0: tell a masked frame's quantized sound from those of other masked frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.model.encoder import Encoder
from asr.model.masking import MaskConfig, span_mask, unseen
from asr.model.quantizer import (
    GumbelQuantizer,
    Quantized,
    QuantizerConfig,
    TemperatureSchedule,
    diversity_loss,
)


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """As the base model of Baevski et al. 2020, section 4.2. `temperature` divides the similarities."""

    mask: MaskConfig = field(default_factory=MaskConfig)
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    gumbel: TemperatureSchedule = field(default_factory=TemperatureSchedule)
    out_dim: int = 256
    distractors: int = 100
    temperature: float = 0.1
    diversity_weight: float = 0.1


class Contrastive(nn.Module):
    """The objective of Baevski et al. 2020, section 3, on our own encoder.

    Log-mel and the encoder's stem stand where the paper's convolutions over the waveform stand. As there,
    masked frames of the stem's output are replaced by a learned vector before the blocks, and the targets are
    the unmasked ones, normalised and quantized. Targets and distractors are the masked frames that nothing
    visible gives away (`unseen`). The penalty on the size of the features is left out.
    """

    def __init__(self, config: ContrastiveConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.mask_vector = nn.Parameter(torch.rand(dim))
        self.norm = nn.LayerNorm(dim)
        self.quantizer = GumbelQuantizer(config.quantizer, dim, config.out_dim)
        self.project = nn.Linear(dim, config.out_dim)

    def forward(
        self, encoder: Encoder, features: Tensor, lengths: Tensor, progress: float, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Normalised log-mel (batch, feature frames, mels), lengths (batch,) -> loss (scalar, natural log, a
        guessed frame) and what to report of it. `progress` is the share of the training that is done."""
        frames = encoder.output_lengths(lengths)
        stem = encoder.frames(features)
        mask = span_mask(frames.tolist(), self.config.mask, rng).to(stem.device)
        guessed = unseen(mask, frames)
        distractors = sample_distractors(guessed.sum(1).tolist(), self.config.distractors, rng)
        masked = torch.where(mask.unsqueeze(2), self.mask_vector.to(stem.dtype), stem)
        hidden = encoder.context(masked, frames)
        temperature = self.config.gumbel(progress)
        return self.losses(hidden[guessed], stem[guessed], distractors.to(stem.device), temperature)

    def losses(
        self, hidden: Tensor, stem: Tensor, distractors: Tensor, gumbel_temperature: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The encoder's and the stem's outputs (guessed frames, dim) and int64 (guessed frames, distractors)
        -> loss and report, as `forward`."""
        config = self.config
        target = self.quantizer(self.norm(stem), gumbel_temperature)
        logits = contrastive_logits(self.project(hidden), target, distractors, config.temperature)
        # The true frame is the first choice.
        contrastive = F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))
        diversity = diversity_loss(target.perplexity, config.quantizer)
        right = (logits[:, :1] > logits[:, 1:]).all(1).float().mean()
        report = {
            "contrastive": contrastive,
            "right": right,
            "perplexity": target.perplexity,
        }
        return contrastive + config.diversity_weight * diversity, {k: v.detach() for k, v in report.items()}


def sample_distractors(counts: Sequence[int], num: int, rng: np.random.Generator) -> Tensor:
    """Guessed frames of each utterance -> int64 (all of them, num): for each `num` others of its utterance,
    drawn evenly with replacement (Baevski et al. 2020, section 3.2). A frame that is
    alone in its utterance gets itself."""
    drawn = [np.zeros((0, num), np.int64)]
    first = 0
    for count in counts:
        if count:
            others = rng.integers(0, max(count - 1, 1), (count, num))
            if count > 1:
                others += others >= np.arange(count)[:, None]
            drawn.append(first + others)
            first += count
    return torch.from_numpy(np.concatenate(drawn))


def contrastive_logits(context: Tensor, target: Quantized, distractors: Tensor, temperature: float) -> Tensor:
    """Equation 3 of Baevski et al. 2020: cosine similarities over temperature, the true target first, float32
    (frames, 1 + distractors).

    `context` (frames, out_dim) belongs to `target.vectors`; `distractors` int64 (frames, distractors) point
    into these. A distractor with the codes of the true target gets -inf, as in the authors' code.
    """
    # All pairs at once: a matrix product is cheaper than gathering the vectors of each distractor.
    with torch.autocast(context.device.type, enabled=False):  # a small temperature magnifies rounding
        similarity = F.normalize(context.float(), dim=1) @ F.normalize(target.vectors.float(), dim=1).T
    own = torch.arange(len(context), device=context.device)[:, None]
    logits = similarity.gather(1, torch.cat([own, distractors], 1)) / temperature
    same = (target.codes[distractors] == target.codes[:, None]).all(2)
    return torch.cat([logits[:, :1], logits[:, 1:].masked_fill(same, -torch.inf)], 1)

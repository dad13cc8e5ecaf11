"""What fine-tuning makes small: CTC or CTC-CRF, and what may stand beside it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.model.arithmetic import autocast
from asr.model.encoder import PhoneModel
from asr.training.batches import Batch
from asr.training.ctc_crf import PhoneNgram, ctc_crf_loss


class Loss(StrEnum):
    CTC = "ctc"
    CTC_CRF = "ctc-crf"


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """`loss`: on the phones; beside CTC-CRF stands CTC with `ctc_weight`, without which it is not stable.
    `frame`: weight of the frame labels at the beginning and at the end of the training. `consistency`: weight
    of the consistency of two masked copies, 0.2 in its paper; the batches must hold the copies.
    `intermediate`: share of the loss on the phones that is CTC in the middle of the network, 0.3 in its
    paper."""

    loss: Loss = Loss.CTC
    ctc_weight: float = 0.1
    frame: tuple[float, float] = (1.0, 0.2)
    consistency: float = 0.0
    intermediate: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.intermediate < 1:
            raise ValueError(f"intermediate is a share of the loss, from 0 to below 1: {self.intermediate:g}")
        if self.consistency < 0:
            raise ValueError(f"the weight of consistency cannot be negative: {self.consistency:g}")


class Objective(nn.Module):
    """A network with auxiliary head and its loss. CTC-CRF needs the phone n-gram of the training texts."""

    ngram: Tensor

    def __init__(self, network: PhoneModel, config: ObjectiveConfig, ngram: PhoneNgram | None = None) -> None:
        super().__init__()
        assert network.frame is not None and (config.loss is Loss.CTC or ngram is not None)
        self.network, self.config = network, config
        self.register_buffer("ngram", ngram.probs if ngram else None, persistent=False)

    def forward(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its parts by name before they are weighted. `progress`: share of the training done,
        0 to 1."""
        config, network = self.config, self.network
        encoder = network.encoder
        lengths = encoder.output_lengths(batch.lengths)
        with autocast(batch.features.device):
            middle, top = encoder.depths(encoder.frames(batch.features), lengths)
            hidden = encoder.norm(top)
            logits = network.ctc(hidden).float()
            assert network.frame is not None
            frame_logits = network.frame(hidden).float()
        log_probs = logits.log_softmax(2)
        parts = {"ctc": ctc_loss(log_probs, lengths, batch), "frame": frame_loss(frame_logits, batch)}
        phones = parts["ctc"]
        if config.loss is Loss.CTC_CRF:
            parts["crf"] = crf_loss(logits, lengths, batch, PhoneNgram(self.ngram))
            phones = parts["crf"] + config.ctc_weight * parts["ctc"]
        if config.intermediate:
            parts["middle"] = ctc_loss(middle_log_probs(network, middle), lengths, batch)
            phones = (1 - config.intermediate) * phones + config.intermediate * parts["middle"]
        first, last = config.frame
        loss = phones + (first + (last - first) * progress) * parts["frame"]
        if config.consistency:
            parts["consistency"] = consistency_loss(log_probs, lengths) / batch.target_lengths.sum()
            loss = loss + config.consistency * parts["consistency"]
        return loss, parts


def ctc_loss(log_probs: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
    """Log-probs (batch, frames, tokens), natural log, of lengths (batch,) -> CTC loss a phone: scalar."""
    return F.ctc_loss(
        log_probs.transpose(0, 1), batch.targets, lengths, batch.target_lengths,
        reduction="sum", zero_infinity=True,
    ) / batch.target_lengths.sum()  # fmt: skip


def crf_loss(logits: Tensor, lengths: Tensor, batch: Batch, ngram: PhoneNgram) -> Tensor:
    """As `ctc_loss`, normalised over all strings of phones (`ctc_crf_loss`)."""
    each = ctc_crf_loss(logits, lengths, batch.targets, batch.target_lengths, ngram)
    return each.sum() / batch.target_lengths.sum()


def middle_log_probs(network: PhoneModel, middle: Tensor) -> Tensor:
    """What the network would say if it ended after half of its blocks, through the same norm and head (Lee &
    Watanabe 2021, Intermediate loss regularization for CTC-based speech recognition, section 2.3)."""
    with autocast(middle.device):
        logits: Tensor = network.ctc(network.encoder.norm(middle)).float()
    return logits.log_softmax(2)


def consistency_loss(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """How far two copies of the same utterances are apart: summed over all frames of both, scalar.

    Log-probs (batch, frames, tokens) float32, natural log, where the second half of the batch is a copy of
    the first one with other masks; lengths (batch,). Each copy is drawn to the other: Kullback-Leibler
    divergence from the other's posteriors, which get no gradient (Yao et al. 2024, CR-CTC: consistency
    regularization on CTC, section 3.1). Divided by the phones of both copies it stands to the CTC loss a
    phone as in the paper.
    """
    assert len(log_probs) % 2 == 0
    inside = torch.arange(log_probs.shape[1], device=log_probs.device) < lengths[:, None]
    other = log_probs.detach().roll(len(log_probs) // 2, 0)
    divergence = F.kl_div(log_probs, other, reduction="none", log_target=True).sum(2)
    return torch.where(inside, divergence, 0).sum()


def frame_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Logits (batch, frames, 5 * tokens) of the frame head -> cross-entropy a labelled frame, summed over the
    three frame labels: scalar, 0 where no frame has a label."""
    num_tokens = logits.shape[2] // 5
    parts = logits.split([3 * num_tokens, num_tokens, num_tokens], 2)
    labels = (batch.classes, batch.left, batch.right)
    weights = (1.0, 0.3, 0.3)  # the neighbours are a means, the class is the end
    num_labelled = (batch.classes >= 0).sum().clamp_min(1)
    each = [
        weight * F.cross_entropy(part.flatten(0, 1), label.flatten(), ignore_index=-1, reduction="sum")
        for weight, part, label in zip(weights, parts, labels, strict=True)
    ]
    return torch.stack(each).sum() / num_labelled

"""CTC-CRF: CTC's paths, normalised over all phone strings under a phone n-gram.

Xiang & Ou 2019, CRF-based single-stage acoustic modeling with CTC topology, section 3: what lattice-free MMI
(Povey et al. 2016) is to hidden Markov models. Here the n-gram is dense, so that the sum over all strings is
a matrix product a frame, without any graph.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_HAS_TRITON = importlib.util.find_spec("triton") is not None  # comes with torch on Linux


@dataclass(frozen=True)
class PhoneNgram:
    """`probs` (tokens, tokens, tokens) float: of phone c after the phones a, b. As a history 0 is the
    beginning (0, 0 before the first phone, 0, b before the second); as c it is the end of the utterance. Each
    row that can occur sums to one and has no zero."""

    probs: Tensor

    def log_prob(self, targets: Tensor, lengths: Tensor) -> Tensor:
        """Phones (batch, longest) int64, 0 beyond lengths (batch,) -> natural log of each string's
        probability, its end included: (batch,)."""
        before = F.pad(targets, (2, 0))
        following = F.pad(targets, (0, 1))
        each = self.probs[before[:, :-1], before[:, 1:], following].log()
        places = torch.arange(each.shape[1], device=targets.device)
        return each.masked_fill(places > lengths[:, None], 0).sum(1)


def estimate_phone_ngram(strings: Iterable[Sequence[int]], num_tokens: int, order: int = 3) -> PhoneNgram:
    """Count phone strings (token ids, blank 0 not among them) and smooth.

    Witten & Bell 1991 (method C), interpolated from the uniform distribution over `num_tokens` (every phone,
    and the end) up to `order` 3 or 2: a history seen n times with d different successors gives
    d / (n + d) of its probability to the shorter history. Raises ValueError for ids out of range, or if there
    is no string at all.
    """
    assert order in (2, 3)
    counts = np.zeros((num_tokens,) * 3)
    total = 0
    for string in strings:
        ids = np.asarray(string, np.int64)
        if len(ids) and not 0 < ids.min() <= ids.max() < num_tokens:
            raise ValueError(f"phone ids must be 1 to {num_tokens - 1}, not {ids.min()} to {ids.max()}")
        padded = np.concatenate([[0, 0], ids, [0]])
        np.add.at(counts, (padded[:-2], padded[1:-1], padded[2:]), 1)
        total += 1
    if not total:
        raise ValueError("no phone strings: there is nothing to estimate a phone n-gram from")
    probs = np.full(num_tokens, 1 / num_tokens)
    for level in (counts.sum((0, 1)), counts.sum(0), counts)[:order]:
        seen = level.sum(-1, keepdims=True)
        kinds = (level > 0).sum(-1, keepdims=True)
        probs = np.where(seen > 0, (level + kinds * probs) / np.maximum(seen + kinds, 1), probs)
    table = np.broadcast_to(probs, counts.shape)
    return PhoneNgram(torch.from_numpy(table.astype(np.float32)))


def ctc_crf_loss(
    logits: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, ngram: PhoneNgram
) -> Tensor:
    """Negative log-probability of each utterance's phones: (batch,), natural log, never negative.

    logits (batch, frames, tokens), blank 0: float64 is kept, everything else is computed in float32. A number
    added to all tokens of a frame changes nothing. targets (batch, longest) int64, 0 beyond target_lengths
    (batch,). Utterances with fewer frames than their phones need have loss and gradient 0.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    probs = ngram.probs.to(logits)
    log_prob = PhoneNgram(probs).log_prob(targets, target_lengths)
    difference: Tensor = _PathsLoss.apply(logits, lengths, targets, target_lengths, probs)
    return torch.where(difference.isfinite(), difference - log_prob, 0)


class _PathsLoss(torch.autograd.Function):
    """log of the summed scores of all strings' paths, less that of the target's: (batch,), infinite where the
    target has no path. Its gradient is the difference of the shares of paths through each token."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, probs: Tensor
    ) -> Tensor:
        scores = logits.log_softmax(2)
        inside = torch.arange(logits.shape[1], device=logits.device) < lengths[:, None]
        paths, of_target = target_paths(scores, lengths, targets, target_lengths)
        log_z, of_all = all_paths(scores, inside, probs)
        used = inside & paths.isfinite()[:, None]
        ctx.save_for_backward(torch.where(used[..., None], of_all - of_target, 0))
        return log_z - paths

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        # The log_softmax changes nothing: the shares of a frame's tokens sum to one in both.
        (gradient,) = ctx.saved_tensors
        return gradient * weight[:, None, None], None, None, None, None


def target_paths(
    scores: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probs (batch, frames, tokens) -> log of the sum over the target's CTC paths (batch,), and the share
    of that sum through each token (batch, frames, tokens)."""
    with torch.enable_grad():
        leaf = scores.detach().requires_grad_()
        # torch gives exp(scores) - shares here, which is the gradient before a log_softmax.
        loss = F.ctc_loss(leaf.transpose(0, 1), targets, lengths, target_lengths, reduction="none")
        finite = torch.where(loss.isfinite(), loss, 0)
        (gradient,) = torch.autograd.grad(finite.sum(), leaf)
    return -loss.detach(), scores.exp() - gradient


def all_paths(scores: Tensor, inside: Tensor, probs: Tensor) -> tuple[Tensor, Tensor]:
    """scores (batch, frames, tokens) natural log, inside (batch, frames) bool, PhoneNgram.probs -> log of the
    sum over all phone strings of their probability times the scores of all their CTC paths (batch,), and the
    share of that sum through each token (batch, frames, tokens), which means nothing beyond the end.

    A state is the last two phones a, b and whether the last frame was blank or phone b. The arrays are
    [b, utterance, a] with the blank's half first, so that the step to all next phones c is a product of
    matrices for each b. In linear scale, each frame divided by the sum of the last. On a GPU these would be
    thousands of kernels which do little each: there `ctc_crf_fused` has two for all frames.
    """
    if scores.is_cuda and scores.dtype == torch.float32 and _HAS_TRITON:
        from asr.training import ctc_crf_fused

        return ctc_crf_fused.all_paths(scores, inside.sum(1), probs)
    tokens = scores.shape[2]
    top = scores.amax(2)
    emitted = (scores - top[..., None]).exp()
    # A frame beyond the end is surely blank: that changes no state's sum, neither forward nor backward.
    padding = F.one_hot(torch.zeros_like(inside, dtype=torch.int64), tokens).to(scores)
    emitted = torch.where(inside[..., None], emitted, padding).transpose(0, 1).contiguous()
    steps = probs.transpose(0, 1).clone()  # [b, a, c]
    ends = steps[:, :, 0].clone()  # [b, a]
    steps[:, :, 0] = 0
    from_phone = steps.clone()  # a phone that comes again needs a blank between
    from_phone.diagonal(dim1=0, dim2=2).zero_()
    steps = torch.cat([steps, from_phone], 1)  # [b, half and a, c]

    with _without_denormals():
        alphas, scale = _forward(emitted, steps)
        shares = _backward(emitted, steps, ends, alphas)
    last = (alphas[-1].unflatten(2, (2, tokens)).sum(2) * ends[:, None]).sum((0, 2))
    log_z = last.log() + scale + torch.where(inside, top, 0).sum(1)
    return log_z, shares.transpose(0, 1)


@contextmanager
def _without_denormals() -> Iterator[None]:
    """Numbers below the normal range are zero: once a network is sure there are many, and a processor takes
    five times as long with them."""
    already = bool((torch.full((1,), 1e-40) * 1 == 0).item())
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)


def _forward(emitted: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """emitted (frames, batch, tokens), steps [b, half and a, c] -> alphas (frames + 1, b, batch, half and a),
    each frame on a scale of its own, and the log of the last frame's scale (batch,)."""
    frames, num, tokens = emitted.shape
    alphas = emitted.new_empty(frames + 1, tokens, num, 2 * tokens)
    alphas[0] = 0
    alphas[0, 0, :, 0] = 1
    sums = emitted.new_ones(frames + 1, num)
    following = emitted.new_empty(tokens, num, tokens)
    phones = emitted.transpose(1, 2).unsqueeze(3).contiguous()  # (frames, tokens, batch, 1)
    for t in range(frames):
        blank, phone = alphas[t].split(tokens, 2)
        new_blank, new_phone = alphas[t + 1].split(tokens, 2)
        scaled = phones[t] / sums[t, :, None]
        torch.bmm(alphas[t], steps, out=following)  # [b, utterance, c]
        torch.add(following.permute(2, 1, 0), phone, out=new_phone)  # [c, utterance, b]
        new_phone.mul_(scaled)
        torch.add(blank, phone, out=new_blank)
        new_blank.mul_(scaled[0])
        torch.sum(alphas[t + 1], (0, 2), out=sums[t + 1])
    return alphas, sums[:-1].log().sum(0)


def _backward(emitted: Tensor, steps: Tensor, ends: Tensor, alphas: Tensor) -> Tensor:
    """As `_forward`, with ends [b, a] -> each token's share of all paths (frames, batch, tokens)."""
    frames, num, tokens = emitted.shape
    shares = emitted.new_zeros(frames, tokens, num, 2)
    back = steps.transpose(1, 2).contiguous()  # [b, c, half and a]
    phones = emitted.transpose(1, 2).unsqueeze(3).contiguous()
    beta = ends.repeat(1, 2).unsqueeze(1).expand(tokens, num, 2 * tokens).contiguous()
    through, before = torch.empty_like(beta), torch.empty_like(beta)
    said = emitted.new_empty(tokens, num, tokens)
    following = torch.empty_like(said)
    for t in reversed(range(frames)):
        torch.mul(alphas[t + 1], beta, out=through)
        torch.sum(through.unflatten(2, (2, tokens)), 3, out=shares[t])
        scaled = phones[t] / beta.sum((0, 2))[:, None]
        blank, phone = beta.split(tokens, 2)
        torch.mul(phone, scaled, out=said)  # phone b in this frame, after a: [b, utterance, a]
        following.copy_(said.permute(2, 1, 0))  # the same, as the next phone c after b
        torch.bmm(following, back, out=before)
        silent = torch.mul(blank, scaled[0])
        from_blank, from_phone = before.split(tokens, 2)
        from_blank.add_(silent)
        from_phone.add_(silent).add_(said)
        beta, before = before, beta
    of_tokens = shares[..., 1].transpose(1, 2).contiguous()
    of_tokens[:, :, 0] = shares[..., 0].sum(1)
    return of_tokens / of_tokens.sum(2, keepdim=True)

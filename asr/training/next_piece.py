"""The loss of a neural language model: how surprised it is by the next piece."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from asr.model.arithmetic import autocast
from asr.model.neural_lm import NeuralLM
from asr.training.sentences import IGNORED, Corpus, SentenceBatches

# Rows of logits at a time: they stay in a processor's cache, and keep a GPU busy.
_ROWS, _ROWS_ON_GPU = 512, 16_384
_JUDGED = 8192  # pieces at a time


def next_piece_loss(network: NeuralLM, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy (natural log) of the targets, int64 (batch, n), after `inputs`; IGNORED ones do not
    count."""
    n = inputs.shape[1]
    places = torch.arange(n, device=inputs.device)
    before = torch.ones(n, n, dtype=torch.bool, device=inputs.device).tril()
    hidden = network(inputs, places, before)
    counted = targets.flatten() != IGNORED
    loss: Tensor = _CrossEntropy.apply(
        hidden.flatten(0, 1)[counted], network.embed.weight, targets.flatten()[counted]
    )
    return loss


class _CrossEntropy(torch.autograd.Function):
    """Of logits that are never there all at once: each slice of them is turned to its gradient while it is
    at hand. Products in the dtype of autocast, sums in float32."""

    @staticmethod
    def forward(ctx, hidden, weight, targets):  # type: ignore[no-untyped-def]
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        with torch.autocast(device, enabled=False):
            hidden, table = hidden.to(dtype), weight.to(dtype)
            of_hidden, of_weight = torch.empty_like(hidden), torch.zeros_like(weight)
            total = weight.new_zeros(())
            num = _ROWS if device == "cpu" else _ROWS_ON_GPU
            for i in range(0, len(targets), num):
                rows, wanted = hidden[i : i + num], targets[i : i + num, None]
                logits = (rows @ table.T).float()
                log_sums = logits.logsumexp(1, keepdim=True)
                total += (log_sums - logits.gather(1, wanted)).sum()
                slopes = logits.sub_(log_sums).exp_()
                slopes.scatter_add_(1, wanted, torch.full_like(log_sums, -1.0))
                slopes = slopes.to(dtype)
                of_hidden[i : i + num] = slopes @ table
                of_weight += (slopes.T @ rows).float()
        ctx.save_for_backward(of_hidden / len(targets), of_weight / len(targets))
        return total / len(targets)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        of_hidden, of_weight = ctx.saved_tensors
        return of_hidden * grad, of_weight * grad, None


@torch.no_grad()
def perplexity(network: NeuralLM, corpus: Corpus, device: torch.device) -> float:
    """Of a word, the sentence ends counting as words, as for an n-gram model that knows all words. Raises
    ValueError for a corpus without sentences."""
    batches = SentenceBatches(corpus, _JUDGED, int(corpus.lengths.max(initial=0)), seed=0)
    if not batches.num_targets:
        raise ValueError("there are no sentences to measure the perplexity of")
    total = 0.0
    for batch in batches.epoch(0):
        inputs, targets = (t.to(device) for t in batch)
        with autocast(device):
            mean = next_piece_loss(network, inputs, targets)
        total += mean.item() * int((targets != IGNORED).sum())
    return math.exp(total / (corpus.num_words + len(batches.usable)))

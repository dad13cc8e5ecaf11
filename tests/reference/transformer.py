"""The neural language model word for word: one sentence, loops, double precision, no batches and no tree."""

from __future__ import annotations

import math

import numpy as np


def next_piece_log_probs(weights: dict[str, np.ndarray], heads: int, pieces: list[int]) -> np.ndarray:
    """(pieces + 1, vocabulary) float64: after the begin (piece 0) and after each piece, natural log."""
    seen = [0, *pieces]
    longest = len(weights["position.weight"]) - 1
    x = [
        norm(weights, "first", weights["embed.weight"][p] + weights["position.weight"][min(i, longest)])
        for i, p in enumerate(seen)
    ]
    layer = 0
    while f"blocks.{layer}.up.weight" in weights:
        x = block(weights, f"blocks.{layer}", heads, x)
        layer += 1
    logits = np.array([weights["embed.weight"] @ norm(weights, "norm", row) for row in x])
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def block(weights: dict[str, np.ndarray], name: str, heads: int, x: list[np.ndarray]) -> list[np.ndarray]:
    dim = len(x[0])
    size = dim // heads
    asked = [
        weights[f"{name}.attention_in.weight"] @ norm(weights, f"{name}.attention_norm", row) for row in x
    ]
    after = []
    for i, row in enumerate(x):
        heard = []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            q = asked[i][:dim][part]
            scores = [q @ a[dim : 2 * dim][part] / math.sqrt(size) for a in asked[: i + 1]]
            shares = np.exp(scores) / np.exp(scores).sum()
            heard.append(sum(s * a[2 * dim :][part] for s, a in zip(shares, asked, strict=False)))
        row = row + weights[f"{name}.attention_out.weight"] @ np.concatenate(heard)
        up = weights[f"{name}.up.weight"] @ norm(weights, f"{name}.norm", row)
        after.append(row + weights[f"{name}.down.weight"] @ np.maximum(up, 0) ** 2)
    return after


def norm(weights: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    scaled = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

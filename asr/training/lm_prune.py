"""Prune by relative entropy (Stolcke 1998, "Entropy-based pruning of backoff language models")."""

from __future__ import annotations

import numpy as np

from asr.training.lm_tables import NgramModel, Table, renormalised


def prune(model: NgramModel, max_ngrams: int) -> NgramModel:
    """The model with at most `max_ngrams` n-grams (all words stay), less those whose loss changes it least.

    Differs from the paper in the weight of a context: its relative frequency in the text where that is known
    (`Table.history`), since Kneser-Ney's lower orders are no estimate of how often a context occurs (Chelba,
    Brants, Neveitt and Xu 2010). An n-gram that is prefix or suffix of a kept one is kept, so that every
    reader of ARPA files can take the model.
    """
    if max_ngrams >= sum(model.sizes):
        return model
    costs = [np.zeros(len(model.words)), *(removal_costs(model, n) for n in range(2, model.order + 1))]
    # Bisect over the ranks of the costs: `fits` keeps few enough n-grams, `exceeds` too many.
    ranked = np.sort(np.concatenate(costs[1:]))
    exceeds, fits = -1, len(ranked) - 1
    while fits - exceeds > 1:
        middle = (fits + exceeds) // 2
        if sum(int(keep.sum()) for keep in _kept(model, costs, ranked[middle])) > max_ngrams:
            exceeds = middle
        else:
            fits = middle
    return renormalised(_filtered(model, _kept(model, costs, ranked[fits])))


def removal_costs(model: NgramModel, order: int) -> np.ndarray:
    """float64 (rows): the relative entropy in nats between the model and the one without that n-gram.

    Equation 7 of the paper: with p = P(w | h), q = P(w | shorter h) and backoffs a and a' before and after,
    P(h) (p (log p - log q - log a') + (1 - sum of P(. | h)) (log a - log a')).
    """
    contexts = model.contexts(order)
    table, below = model.tables[order - 1], model.tables[order - 2]
    prob, lower = table.prob, model.lower_probs(order)
    left = np.maximum(1 - np.bincount(contexts, weights=prob, minlength=len(below)), 1e-12)[contexts]
    left_lower = np.maximum(1 - np.bincount(contexts, weights=lower, minlength=len(below)), 1e-12)[contexts]
    log_before = np.log(left) - np.log(left_lower)
    log_after = np.log(left + prob) - np.log(left_lower + lower)
    change = prob * (np.log(prob) - np.log(lower) - log_after) + left * (log_before - log_after)
    return below.history[contexts] * change


def _kept(model: NgramModel, costs: list[np.ndarray], threshold: float) -> list[np.ndarray]:
    """For each order bool (rows): dearer than the threshold, or part of a longer n-gram that is."""
    keeps = [cost > threshold for cost in costs]
    keeps[0][:] = True
    for n in range(model.order, 2, -1):
        keeps[n - 2][model.contexts(n)[keeps[n - 1]]] = True
        keeps[n - 2][model.tables[n - 1].suffix[keeps[n - 1]]] = True
    return keeps


def _filtered(model: NgramModel, keeps: list[np.ndarray]) -> NgramModel:
    tables: list[Table] = []
    new_rows = np.arange(len(model.words))
    for n, (table, keep) in enumerate(zip(model.tables, keeps, strict=True), 1):
        keys, suffix = table.keys[keep], table.suffix[keep]
        if n > 1:
            keys = new_rows[model.contexts(n)[keep]] << model.bits | model.last_words(n)[keep]
            suffix = new_rows[suffix].astype(np.int32)
        tables.append(
            Table(
                keys=keys,
                suffix=suffix,
                prob=table.prob[keep],
                # With no longer n-gram left, nothing is backed off from.
                backoff=np.ones(len(keys)),
                history=table.history[keep],
            )
        )
        new_rows = np.cumsum(keep) - 1
    return NgramModel(words=model.words, tables=tuple(tables))

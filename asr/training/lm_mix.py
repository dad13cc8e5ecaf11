"""Static interpolation: one backoff model whose n-grams have the weighted mean of several models' P; and
words that occur in none of the texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from asr.training.lm_tables import BOS, UNK, NgramModel, Table, find_rows, renormalised


def mix(models: Sequence[NgramModel], weights: Sequence[float]) -> NgramModel:
    """A model with all the n-grams of `models`, which share words and order, and exact backoffs.

    P(w | h) = sum of weight_i P_i(w | h) for every n-gram that a model lists; the words that none lists
    after h are reached by backoff (Stolcke 2002, "SRILM", section 3.2).
    Raises ValueError if models or weights do not match.
    """
    if len({model.words for model in models}) != 1 or len({model.order for model in models}) != 1:
        raise ValueError("models to mix must share their words and their order")
    if len(weights) != len(models) or min(weights) < 0 or abs(sum(weights) - 1) > 1e-6:
        raise ValueError("there must be a weight for each model, none negative, with a sum of one")
    bits = models[0].bits
    size = len(models[0].words)
    tables = [
        Table(
            keys=np.arange(size),
            suffix=np.zeros(size, np.int32),
            prob=_weighted([model.tables[0].prob for model in models], weights),
            backoff=np.ones(size),
            history=_weighted([model.tables[0].history for model in models], weights),
        )
    ]
    places = [np.arange(size) for _ in models]  # by model: its rows -> rows of the mixture, one order below
    for n in range(2, models[0].order + 1):
        moved = [
            place[model.contexts(n)] << bits | model.last_words(n)
            for place, model in zip(places, models, strict=True)
        ]
        keys = moved[0]
        for other in moved[1:]:
            keys = np.union1d(keys, other)
        contexts, lasts = keys >> bits, keys & ((1 << bits) - 1)
        shorter = tables[-1].suffix[contexts].astype(np.int64)  # 32 bits are too few for a key
        suffix = lasts if n == 2 else find_rows(tables[-1].keys, shorter << bits | lasts)
        assert suffix.min(initial=0) >= 0, "an n-gram without its parts"
        rows = [find_rows(own, keys) for own in moved]
        tables.append(
            Table(
                keys=keys,
                suffix=suffix.astype(np.int32),
                prob=np.zeros(len(keys)),
                backoff=np.ones(len(keys)),
                history=_weighted(
                    [_taken(m.tables[n - 1].history, r, 0.0) for m, r in zip(models, rows, strict=True)],
                    weights,
                ),
            )
        )
        places = [np.searchsorted(keys, own) for own in moved]
    for model, weight in zip(models, weights, strict=True):
        for table, prob in zip(tables[1:], _probs_of(model, tables)[1:], strict=True):
            np.add(table.prob, weight * prob, out=table.prob)
    return renormalised(NgramModel(words=models[0].words, tables=tuple(tables)))


def with_unseen(model: NgramModel, frequencies: Mapping[str, float], share: float) -> NgramModel:
    """The words that no text has, as far as `frequencies` has them, are `share` of all words out of context,
    each by its frequency; the others share the rest as before.

    A text tells that there are words beyond it, but not which: Kneser-Ney gives each of them alike. The very
    `model` comes back where there is no such word. Raises ValueError for a share that is not from 0 to below
    1.
    """
    if not 0 <= share < 1:
        raise ValueError(f"the share of unseen words must be from 0 to below 1, not {share:g}")
    table = model.tables[0]
    # Nothing is below the share of a word that no text has, which <unk> gets too.
    unseen = table.prob <= table.prob[UNK] * (1 + 1e-6)
    unseen[[UNK, BOS]] = False
    wanted = np.array([frequencies.get(word, 0.0) for word in model.words]) * unseen
    if not share or not wanted.any():
        return model
    others = np.where(wanted > 0, 0.0, table.prob)
    prob = np.where(wanted > 0, share * wanted / wanted.sum(), others * (1 - share) / others.sum())
    return renormalised(replace(model, tables=(replace(table, prob=prob), *model.tables[1:])))


def _probs_of(model: NgramModel, tables: Sequence[Table]) -> list[np.ndarray]:
    """For each table float64 (rows): what `model` gives each n-gram, by backoff if it lists it not."""
    bits = model.bits
    probs = [model.tables[0].prob]
    own_rows = np.arange(len(model.words))  # rows of the mixture one order below -> the model's, or -1
    for n in range(2, len(tables) + 1):
        keys = tables[n - 1].keys
        contexts = own_rows[keys >> bits]
        wanted = np.where(contexts >= 0, contexts << bits | keys & ((1 << bits) - 1), -1)
        rows = find_rows(model.tables[n - 1].keys, wanted)
        backoff = _taken(model.tables[n - 2].backoff, contexts, 1.0)
        backed_off = backoff * probs[-1][tables[n - 1].suffix]
        probs.append(np.where(rows >= 0, model.tables[n - 1].prob[np.maximum(rows, 0)], backed_off))
        own_rows = rows
    return probs


def _taken(values: np.ndarray, rows: np.ndarray, missing: float) -> np.ndarray:
    return np.where(rows >= 0, values[np.maximum(rows, 0)], missing)


def _weighted(values: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    return sum((w * v for w, v in zip(weights, values, strict=True)), np.zeros(len(values[0])))

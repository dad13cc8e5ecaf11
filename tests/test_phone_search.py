"""Phones without a lexicon are those of the best path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.phones import best_path

from asr.decoder import decode_phones
from asr.decoder.phone_search import best_tokens
from asr.phones import PhoneSet

PHONES = PhoneSet(("<blk>", "p", "t", "k"))


def random_case(rng: np.random.Generator, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-probs (frames, 4), and a phone n-gram that is far from even."""
    log_probs = np.log(rng.dirichlet(np.full(4, 0.7), frames) + 1e-6).astype(np.float32)
    return log_probs, rng.dirichlet(np.full(4, 0.3), (4, 4)) * 0.98 + 0.005


def test_the_likeliest_token_of_each_frame() -> None:
    log_probs = np.log(np.eye(4)[[1, 1, 0, 1, 2, 2, 0, 3]] + 0.01)[None]
    assert decode_phones(log_probs, [8], PHONES) == [("p", "p", "t", "k")]
    assert decode_phones(torch.from_numpy(log_probs), torch.tensor([2]), PHONES) == [("p",)]
    assert decode_phones(log_probs, [0], PHONES) == [()]


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_the_best_path_is_that_of_all(weight: float) -> None:
    rng = np.random.default_rng(0)
    changed = 0
    for _ in range(100):
        log_probs, ngram = random_case(rng, int(rng.integers(1, 6)))
        expected = tuple(PHONES.symbols[t] for t in best_path(log_probs, ngram, weight))
        lengths = [len(log_probs)]
        assert decode_phones(log_probs[None], lengths, PHONES, np.log(ngram), weight) == [expected]
        changed += decode_phones(log_probs[None], lengths, PHONES) != [expected]
    assert changed > 20  # else the n-gram would not have been asked


def test_the_ngram_decides_what_the_emissions_leave_open() -> None:
    log_probs = np.log(np.array([[0.02, 0.9, 0.04, 0.04], [0.02, 0.03, 0.45, 0.5]], np.float32))
    ngram = np.full((4, 4, 4), 0.25)
    ngram[0, 1] = [0.1, 0.1, 0.7, 0.1]  # after p comes t
    assert decode_phones(log_probs[None], [2], PHONES) == [("p", "k")]
    assert decode_phones(log_probs[None], [2], PHONES, np.log(ngram)) == [("p", "t")]


def test_batches_and_long_utterances() -> None:
    """Utterances of a batch do not touch one another."""
    rng = np.random.default_rng(1)
    cases = [random_case(rng, n)[0] for n in (300, 17, 0)]
    phone_lm = np.log(random_case(rng, 1)[1])
    batch = np.zeros((3, 300, 4), np.float32)
    for row, log_probs in zip(batch, cases, strict=True):
        row[: len(log_probs)] = log_probs
    found = decode_phones(batch, [300, 17, 0], PHONES, phone_lm)
    alone = [decode_phones(c[None], [len(c)], PHONES, phone_lm)[0] for c in cases]
    assert found == alone and len(found[0]) > 50 and found[2] == ()


def test_no_frames_have_no_phones() -> None:
    assert len(best_tokens(np.zeros((0, 4), np.float32), np.zeros((4, 4, 4), np.float32))) == 0

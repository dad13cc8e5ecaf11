from __future__ import annotations

import random
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.edit_distance import edit_distance, nearest_reading

from asr.metrics import Errors, align, bootstrap_interval, count_errors, phone_errors, recall

items = st.lists(st.sampled_from("abc"), max_size=5)


@given(items, items)
def test_an_alignment_has_both_texts_and_the_fewest_errors(reference: list[str], heard: list[str]):
    pairs = align(reference, heard)
    assert [a for a, _ in pairs if a] == reference and [b for _, b in pairs if b] == heard
    assert ("", "") not in pairs
    assert count_errors(pairs) == Errors(errors=edit_distance(reference, heard), total=len(reference))


def test_errors_are_paired_with_what_was_said():
    said, heard = "the nurse gave him drisconel", "the nurse gave him drisk and all"
    pairs = align(said.split(), heard.split())
    assert pairs[:4] == [(w, w) for w in ("the", "nurse", "gave", "him")]
    assert [pair for pair in pairs if pair[0] != pair[1]][-1] == ("drisconel", "all")
    assert count_errors(pairs).rate == pytest.approx(3 / 5)


def test_a_long_recording_is_aligned_in_time():
    rng = random.Random(1)
    reference = [str(rng.randrange(300)) for _ in range(3000)]
    heard = [w for w in reference if rng.random() > 0.1]
    began = time.perf_counter()
    assert count_errors(align(reference, heard)).errors == len(reference) - len(heard)
    assert time.perf_counter() - began < 3


variants = st.lists(
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=3), min_size=1, max_size=2), max_size=3
)


@given(variants, items)
def test_phone_errors_are_those_of_the_nearest_reading(words: list[list[list[str]]], heard: list[str]):
    errors, total = nearest_reading(words, heard)
    assert phone_errors(words, heard) == Errors(errors=errors, total=total)


def test_rates_add_up_by_counts():
    both = Errors(errors=1, total=1) + Errors(errors=0, total=3)
    assert both.rate == 0.25 and Errors().rate == 0


def test_the_interval_covers_the_rate_as_often_as_it_says():
    rng = random.Random(3)
    hits = 0
    for seed in range(100):
        counts = [Errors(errors=sum(rng.random() < 0.2 for _ in range(10)), total=10) for _ in range(40)]
        low, high = bootstrap_interval(counts, samples=300, seed=seed)
        hits += low <= 0.2 <= high
    assert 85 <= hits <= 99
    assert bootstrap_interval([]) == (0.0, 0.0)
    assert bootstrap_interval(counts) == bootstrap_interval(counts)
    low, high = bootstrap_interval([Errors(errors=1, total=4)] * 9)
    assert low == high == 0.25


def test_recall_counts_within_each_utterance():
    texts = [("ask ann lee about ann", "ask ann lee about ann ann"), ("new york", "york new"), ("bob", "bob")]
    found = recall(texts, ["ann", "ann lee", "new york", "bob", "zoe", "bob", " "])
    assert found.by_word == {"ann": (2, 2, 1), "ann lee": (1, 1, 0), "new york": (1, 0, 0), "bob": (1, 1, 0)}
    assert (found.said, found.found, found.false) == (5, 4, 1)
    assert found.rate == pytest.approx(4 / 5)
    assert recall(texts, []).rate == 0


@given(st.lists(st.tuples(items, items), max_size=4))
def test_recall_of_single_words_is_that_of_counting(texts: list[tuple[list[str], list[str]]]):
    found = recall([(" ".join(a), " ".join(b)) for a, b in texts], ["a", "b"])
    said = found_ = false = 0
    for a, b in texts:
        x, y = (Counter(w for w in t if w != "c") for t in (a, b))
        said, found_, false = said + x.total(), found_ + (x & y).total(), false + (y - x).total()
    assert (found.said, found.found, found.false) == (said, found_, false)

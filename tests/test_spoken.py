"""Pronunciations against emissions: explained, heard, placed; and ranked over several recordings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.words import all_strings, best_span

from asr import paths
from asr.phones import PhoneSet
from asr.rank import HEARD, rank
from asr.spoken import edits, explain, find_span, heard, likely_tokens, trim

PHONES = PhoneSet.read(paths.PRETRAINED / "phones.txt")
seeds = st.integers(0, 10_000)


def random_rows(seed: int, frames: int, tokens: int = 3) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 2, (frames, tokens))
    return (logits - np.logaddexp.reduce(logits, 1, keepdims=True)).astype(np.float32)


def rows_of(path: str, sure: float = 0.9, other: dict[int, str] | None = None) -> np.ndarray:
    """Log-probs of frames with a phone each, - for blank; `other`: frame -> a phone almost as likely."""
    names = path.split()
    rows = np.full((len(names), len(PHONES)), (1 - sure) / (len(PHONES) - 1))
    for i, name in enumerate(names):
        rows[i, 0 if name == "-" else PHONES.ids[name]] = sure
    for i, name in (other or {}).items():
        rows[i, PHONES.ids[name]] = sure * 0.8
    return np.log(rows / rows.sum(1, keepdims=True)).astype(np.float32)


@settings(deadline=None, max_examples=20)  # the first call compiles the kernels
@given(seeds)
def test_explained_and_heard_as_all_paths_have_it(seed: int):
    rows = random_rows(seed, 5)
    truth = all_strings(rows)
    strings = [said for said in truth if said]
    assert explain(rows, strings) == pytest.approx([truth[said] for said in strings], abs=1e-4)
    best = sorted(truth, key=lambda said: -truth[said])[:3]
    found = heard(rows, count=3, beam_size=1000)
    assert [truth[said] for said in found] == pytest.approx([truth[said] for said in best], abs=1e-4)


@settings(deadline=None, max_examples=20)
@given(seeds, st.sampled_from([(1,), (1, 2), (2, 2), (1, 2, 1)]), st.booleans())
def test_a_span_is_the_best_of_all(seed: int, tokens: tuple[int, ...], free: bool):
    rows = random_rows(seed, 5)
    span = find_span(rows, tokens, free)
    assert span is not None and span.score == pytest.approx(best_span(rows, tokens, free), abs=1e-4)
    assert list(span.frames) == sorted(set(span.frames)) and span.frames[-1] < span.end


def test_a_word_is_found_between_others():
    rows = rows_of("- ð ə - z ɑː - l f ə - ə n ɪ k - p l eɪ - -")
    word = tuple(PHONES.encode(PHONES.parse("z ɑː l v ə n ɪ k")))
    span = find_span(rows, word, free=True)
    assert span is not None and (span.frames[0], span.frames[-1]) == (4, 14) and 15 <= span.end <= 16
    assert find_span(rows[:5], word) is None and find_span(rows, ()) is None


def test_silence_is_trimmed_but_for_a_frame():
    assert trim(rows_of("- - - k æ t - -", sure=0.95)) == (2, 7)
    assert trim(rows_of("- - -", sure=0.95)) == (0, 0)


def test_edits_are_all_of_one_token():
    assert set(edits((1, 2), [1, 3])) == {
        (3, 2), (1, 1), (1, 3), (2,), (1,), (1, 1, 2), (3, 1, 2), (1, 3, 2), (1, 2, 1), (1, 2, 3),
    }  # fmt: skip
    assert () not in edits((1,), [2])


# Ranked.


def sounds(text: str) -> tuple[str, ...]:
    return PHONES.parse(text)


def guess(*texts: str) -> dict[tuple[str, ...], tuple[tuple[str, ...], float]]:
    return {sounds(text): (("en-us",), 0.0) for text in texts}


def test_a_guess_that_fits_is_first_and_known_to_be_heard():
    best = rank([rows_of("z ɑː l v ə n ɪ k")], guess("z ɑː l v ə n ɪ k", "z oʊ l v ə n ɪ k"), PHONES)[0]
    assert best.sounds == sounds("z ɑː l v ə n ɪ k") and best.sources == ("en-us", HEARD)
    assert best.score == pytest.approx(sum(best.fits))  # a guess costs nothing


def test_one_doubtful_sound_does_not_overrule_the_spelling_but_several_recordings_do():
    once = rows_of("z ɑː l f ə n ɪ k", sure=0.5, other={3: "v"})
    guesses = guess("z ɑː l v ə n ɪ k")
    assert rank([once], guesses, PHONES)[0].sounds == sounds("z ɑː l v ə n ɪ k")
    many = rank([rows_of("z ɑː l f ə n ɪ k")] * 3, guesses, PHONES)[0]
    assert many.sounds == sounds("z ɑː l f ə n ɪ k") and many.sources == (HEARD,)


def test_a_misleading_spelling_does_not_count():
    assert rank([rows_of("ʃ ə v ɔː n")], guess("s aɪ oʊ b h æ n"), PHONES)[0].sounds == sounds("ʃ ə v ɔː n")


def test_what_the_sounds_leave_open_is_decided_by_the_phone_ngram():
    spoken = [rows_of("b ɪ l ɪ p", sure=0.5, other={0: "p"}), rows_of("b ɪ l ɪ p", sure=0.4, other={0: "p"})]
    phone_lm = np.full((len(PHONES),) * 3, np.log(0.1), np.float32)
    phone_lm[0, 0, PHONES.ids["b"]] = np.log(1e-5)
    assert rank(spoken, {}, PHONES)[0].sounds == sounds("b ɪ l ɪ p")
    best = rank(spoken, {}, PHONES, phone_lm=phone_lm)[0]
    assert best.sounds == sounds("p ɪ l ɪ p")
    assert best.score == pytest.approx(sum(best.fits) + 0.3 * 5 * np.log(0.1))


def test_what_no_recording_alone_is_heard_as():
    """Each of two recordings spoils another sound: together they have it right."""
    spoilt = [rows_of("p ɪ l ɪ p", other=None), rows_of("b ɪ l ɪ k")]
    spoilt[0][0, PHONES.ids["b"]] = np.log(0.3)
    spoilt[1][4, PHONES.ids["p"]] = np.log(0.3)
    spoilt[1][0, PHONES.ids["p"]] = spoilt[0][4, PHONES.ids["k"]] = np.log(1e-6)
    assert rank(spoilt, {}, PHONES)[0].sounds == sounds("b ɪ l ɪ p")
    assert not likely_tokens([rows_of("- -", sure=0.999)])

"""A second language model chooses among the best hypotheses; and what the search offers it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from test_decoder import PHONES, WIDE, by_definition, close, emissions, random_lexicon, spoken
from test_ngram import WORDS, write_arpa

from asr.decoder import Decoder, DecoderOptions, NgramModel, candidates
from asr.decoder.ctc import relative, relative_score, relative_scores
from asr.lexicon import Entry, Lexicon
from asr.phones import PhoneSet


class Opinion:
    """A language model that likes some words, and remembers what it was asked."""

    def __init__(self, **scores: float) -> None:
        self.scores, self.asked = scores, list[tuple[str, ...]]()

    def log_probs(self, texts: Sequence[Sequence[str]]) -> list[np.ndarray]:
        self.asked += [tuple(text) for text in texts]
        return [np.array([*(self.scores.get(w, -5.0) for w in t), -1.0 - len(t)], np.float32) for t in texts]


HOMOPHONES = Lexicon((Entry(word="a", phones=("p", "t")), Entry(word="b", phones=("p", "t"))))


def homophones(tmp_path: Path, opinion: Opinion | None, **options: object) -> Decoder:
    """Words that sound alike, of which the n-gram model prefers the first."""
    lines = ["\\data\\", "ngram 1=5", "", "\\1-grams:", "-9 <unk>", "-99 <s>", "-1 </s>", "-0.5 a", "-1.5 b"]
    (tmp_path / "lm.arpa").write_text(
        "\n".join([*(x.replace(" ", "\t", 1) for x in lines), "", "\\end\\", ""])
    )
    lm = NgramModel.read(tmp_path / "lm.arpa")
    return Decoder(HOMOPHONES, lm, PHONES, DecoderOptions(**options), rescorer=opinion)  # type: ignore[arg-type]


def test_the_second_model_has_its_share_of_the_choice(tmp_path: Path) -> None:
    log_probs = spoken("p", "t")[None]
    ln10 = math.log(10)
    # The first model prefers a by ln 10, the second b by 4.
    opinion = Opinion(a=-6.0, b=-2.0)
    for share, word in ((0.0, "a"), (0.3, "a"), (0.4, "b"), (1.0, "b")):
        decoder = homophones(tmp_path, opinion, rescoring_weight=share, nbest=2, lm_weight=0.7)
        found = decoder.decode(log_probs)[0]
        assert found[0].words == (word,) and len(found) == 2
        for hypothesis in found:
            first = {"a": -0.5, "b": -1.5}[hypothesis.words[0]] * ln10
            mixed = (1 - share) * (first - ln10) + share * (opinion.scores[hypothesis.words[0]] - 2.0)
            assert hypothesis.lm_score == pytest.approx(mixed, abs=1e-4)
            expected = hypothesis.acoustic_score + 0.7 * hypothesis.lm_score + decoder.options.word_score
            assert hypothesis.score == pytest.approx(expected, abs=1e-4)
    assert set(opinion.asked) == {("a",), ("b",)}


def test_only_the_asked_number_is_rescored_and_told(tmp_path: Path) -> None:
    opinion = Opinion(a=-6.0, b=-2.0)
    log_probs = spoken("p", "t")[None]
    assert homophones(tmp_path, opinion, rescored=1, rescoring_weight=1.0).decode(log_probs)[0][0].words == (
        "a",
    )
    assert opinion.asked == [("a",)]
    assert len(homophones(tmp_path, opinion, rescored=2).decode(log_probs)[0]) == 1
    # The n-gram model prefers the first by ln 10.
    for beam, word, asked in ((2.0, "a", 1), (2.6, "b", 2)):
        opinion.asked.clear()
        decoder = homophones(tmp_path, opinion, rescoring_beam=beam, rescoring_weight=1.0)
        assert decoder.decode(log_probs)[0][0].words == (word,) and len(opinion.asked) == asked


def test_an_unknown_word_keeps_its_score(tmp_path: Path) -> None:
    """The second model reads it, but has no say in it; `like=` lends it another's place in both."""
    log_probs = spoken("p", "s")[None]
    for like, asked in (("", "new"), ("b", "b")):
        opinion = Opinion(a=-6.0, b=-2.0, new=-100.0)
        before = homophones(tmp_path, None, nbest=3)
        after = homophones(tmp_path, opinion, nbest=3, rescoring_weight=0.5)
        for decoder in (before, after):
            decoder.add("New", [("p", "s")], like=like)
        plain, rescored = before.decode(log_probs)[0][0], after.decode(log_probs)[0][0]
        assert plain.words == rescored.words == ("New",)
        assert (asked,) in opinion.asked and ("",) not in opinion.asked
        word = 0.5 * (-2.0 + 1.5 * math.log(10)) if like else 0.0
        end = 0.5 * (-2.0 + math.log(10))
        assert rescored.lm_score == pytest.approx(plain.lm_score + word + end, abs=1e-4)


@pytest.mark.parametrize(("liking", "score"), [(-100.0, -3.0), (-0.5, 0.5 * (-0.5 - 3.0))])
def test_a_rare_word_that_is_added_is_no_worse_than_unknown(
    tmp_path: Path, liking: float, score: float
) -> None:
    """In either model; where one likes it more that counts."""
    options = {"unknown_word_score": -3.0, "unknown_words": 1, "added_at_least_unknown": True, "nbest": 2}
    decoder = homophones(tmp_path, Opinion(a=-10.0, b=liking), **options)
    decoder.add("b", [("p", "t")])
    found = decoder.decode(spoken("p", "t")[None])[0]
    assert [h.words for h in found] == [("b",), ("a",)]
    assert found[0].lm_score == pytest.approx(score + 0.5 * (-2.0 - math.log(10)), abs=1e-4)


def test_marked_words_are_read_as_nothing(tmp_path: Path) -> None:
    opinion = Opinion()
    decoder = homophones(tmp_path, opinion, unknown="mark", unknown_score=0.0)
    assert decoder.decode(spoken("k", "s", "k", "s")[None])[0][0].words == ("<ksks>",)
    assert ("",) in opinion.asked


def test_a_stream_is_rescored_at_its_end_alone(tmp_path: Path) -> None:
    opinion = Opinion(a=-6.0, b=-2.0)
    stream = homophones(tmp_path, opinion, rescoring_weight=1.0).stream()
    stream.accept(spoken("p", "t"))
    assert stream.partial().words == ("a",) and not opinion.asked
    assert [h.words for h in stream.finish()] == [("b",)]


def test_a_rescorer_needs_scores_to_change() -> None:
    with pytest.raises(ValueError, match=r"needs a language model \(--lm\)"):
        Decoder(HOMOPHONES, None, PHONES, rescorer=Opinion())


def test_the_gpu_engine_has_no_choice_to_offer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="engine gpu: it finds one hypothesis"):
        homophones(tmp_path, Opinion(), engine="gpu")


def test_long_utterances_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "MOST_WORDS", 2)
    opinion = Opinion(a=-6.0, b=-2.0)
    decoder = homophones(tmp_path, opinion, rescoring_weight=1.0)
    short, long = spoken("p", "t", "p", "t"), spoken("p", "t", "p", "t", "p", "t")
    batch = np.zeros((2, len(long), len(PHONES)), np.float32)
    batch[0, : len(short)], batch[1] = short, long
    found = decoder.decode(batch, [len(short), len(long)])
    assert [h[0].words for h in found] == [("b", "b"), ("a", "a", "a")]
    assert max(map(len, opinion.asked)) == 2


def test_words_are_read_in_their_normal_form(tmp_path: Path) -> None:
    opinion = Opinion()
    decoder = homophones(tmp_path, opinion)
    decoder.add("X-Ray’s", [("k", "s")])
    decoder.decode(spoken("k", "s")[None])
    assert ("x ray's",) in opinion.asked


def test_hypotheses_come_best_first() -> None:
    """Also where a mark is found in two ways, and the worse one is left out."""
    phones = PhoneSet(("<blk>", "t", "s", "ts"))
    lexicon = Lexicon((Entry(word="w", phones=("t", "t", "s")),))
    decoder = Decoder(lexicon, None, phones, DecoderOptions(unknown="mark", nbest=30))
    for seed in range(100):
        found = decoder.decode(emissions(np.random.default_rng(seed), 8, 4)[None])[0]
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
        assert len({h.words for h in found}) == len(found)


def test_impossible_frames_tell_paths_apart() -> None:
    """Where a frame excludes all words, the language model still has its say."""
    one_hot = np.full((3, 5), -np.inf, np.float32)
    one_hot[[0, 1, 2], [1, 3, 2]] = 0.0  # p, k, t
    for nbest in (1, 2):
        decoder = Decoder(HOMOPHONES, None, PHONES, DecoderOptions(nbest=nbest))
        decoder.add("better", [("p", "t")], boost=1.0)
        found = decoder.decode(one_hot[None])[0]
        assert found[0].words == ("better",) and math.isfinite(found[0].score)


@pytest.mark.parametrize(
    "bad", [{"rescored": 0}, {"rescoring_beam": 0.0}, {"rescoring_weight": -0.1}, {"rescoring_weight": 1.1}]
)
def test_options_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        DecoderOptions(**bad)  # type: ignore[arg-type]


def test_with_all_hypotheses_the_best_of_both_models_is_found(tmp_path: Path) -> None:
    """Against the definition: every word sequence scored by the mixture of both."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        lm = NgramModel.read(close(write_arpa(tmp_path / f"{seed}.arpa", 3, seed, keep=1.0)))
        options = DecoderOptions(lm_weight=0.7, word_score=0.5, rescored=5_000, rescoring_beam=1000.0, **WIDE)
        lexicon = random_lexicon(rng, WORDS[:3])
        lexicon = Lexicon(tuple({e.word: e for e in lexicon.entries}.values()))
        opinion = Opinion(**{word: float(rng.uniform(-12, 0)) for word in WORDS[:3]})
        log_probs = emissions(rng, 5)
        expected = []
        for words, score in by_definition(log_probs, lexicon, lm, options):
            change = float(opinion.log_probs([words])[0].sum()) - sum(lm.score(words))
            expected.append((score + 0.7 * 0.5 * change, words))
        best, words = max(expected)
        found = Decoder(lexicon, lm, PHONES, options, rescorer=opinion).decode(log_probs[None])[0][0]
        assert (found.words, found.score) == (words, pytest.approx(best, abs=2e-3))


def test_a_list_holds_words_not_alignments() -> None:
    """Six words that end anywhere within many frames: their texts are 64, their alignments millions."""
    rng = np.random.default_rng(4)
    log_probs = np.concatenate([spoken("p", "t", gap=4) for _ in range(6)])
    blurred = np.log(0.9 * np.exp(log_probs) + 0.1 * np.exp(emissions(rng, len(log_probs))))
    options = DecoderOptions(nbest=64, word_score=0.0, beam_threshold=30.0, num_threads=1)
    found = [h.words for h in Decoder(HOMOPHONES, None, PHONES, options).decode(blurred[None])[0]]
    assert len(found) == 64
    assert sum(text in found for text in itertools.product("ab", repeat=6)) > 50


def test_scores_far_below_what_a_float_holds() -> None:
    """A path that the emissions all but exclude, against sums of logarithms."""
    rng = np.random.default_rng(2)
    log_probs = emissions(rng, 900, peak=15.0)
    tokens = rng.integers(1, 5, 200).astype(np.int16)
    before = np.full(2 * len(tokens) + 1, -np.inf)
    before[0] = 0.0
    for row in log_probs:
        now = before.copy()
        now[1:] = np.logaddexp(now[1:], before[:-1])
        for k in range(3, len(now), 2):
            if tokens[k // 2] != tokens[k // 2 - 1]:
                now[k] = np.logaddexp(now[k], before[k - 2])
        now[::2] += row[0]
        now[1::2] += row[tokens]
        before = now
    expected = np.logaddexp(before[-1], before[-2])
    assert expected < -2000
    shares, highest = relative(log_probs)
    assert highest + relative_score(shares, tokens) == pytest.approx(expected, rel=1e-6)


def test_a_path_longer_than_the_emissions_is_impossible() -> None:
    shares, _ = relative(emissions(np.random.default_rng(0), 3))
    assert relative_score(shares, np.array([1, 2, 3, 4], np.int16)) == -np.inf


@pytest.mark.parametrize("frames", [40, 700])
def test_paths_together_score_what_each_does_alone(frames: int) -> None:
    """Of long utterances only the alignments near the likely ones are summed: that must not be seen."""
    rng = np.random.default_rng(frames)
    log_probs = emissions(rng, frames, peak=12.0)
    best = log_probs.argmax(1)
    heard = best[np.flatnonzero((best > 0) & (np.append(0, best[:-1]) != best))][::2]
    words = [rng.integers(1, 5, n).astype(np.int16) for n in (1, 3, 2, 5)]
    words.append(heard[: len(heard) // 2].astype(np.int16))
    words.append(heard[len(heard) // 2 :].astype(np.int16))
    paths = [[4, 5], [4, 0, 5], [0, 4, 5, 1], [], [4, 2, 5, 3], [4, 5] * 4]
    shares, _ = relative(log_probs)
    found = relative_scores(
        shares, np.concatenate(words), np.cumsum([0, *map(len, words)]), np.concatenate(paths).astype(int),
        np.cumsum([len(path) for path in paths]),
    )  # fmt: skip
    none = np.zeros(0, np.int16)
    alone = [relative_score(shares, np.concatenate([none, *(words[w] for w in path)])) for path in paths]
    assert alone[-1] == -np.inf and np.isfinite(alone[:-1]).all()
    np.testing.assert_allclose(found, alone, rtol=1e-9)


def test_a_path_that_no_likely_beginning_leads_to_is_scored_all_the_same() -> None:
    """Its tokens come where blank is as good as certain, three nearly impossible ones at the very end."""
    log_probs = np.log(np.full((30, 3), 1e-35, np.float32))
    log_probs[:, 0] = 0.0
    log_probs[-3:] = np.log(np.float32(1e-35))
    log_probs[-3:, 0] = np.log(np.float32(1e-37))
    shares, _ = relative(log_probs)
    tokens = np.array([1, 2, 1, 2, 1, 2], np.int16)
    found = relative_scores(shares, tokens, np.array([0, 6]), np.array([0]), np.array([1]))
    assert found[0] == pytest.approx(relative_score(shares, tokens), rel=1e-9) and np.isfinite(found[0])


def test_candidates_that_cannot_become_the_best_are_not_made(tmp_path: Path) -> None:
    """But for as many as are asked for."""
    for nbest, beam, count in ((1, 2.0, 1), (2, 2.0, 2), (1, 2.6, 2)):
        opinion = Opinion(a=-6.0, b=-2.0)
        decoder = homophones(tmp_path, opinion, nbest=nbest, rescoring_beam=beam)
        found = decoder.decode(spoken("p", "t")[None])[0]
        assert len(opinion.asked) == count and len(found) == nbest

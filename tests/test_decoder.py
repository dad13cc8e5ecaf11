"""The search against its definition, and what users rely on."""

import math
import threading
from pathlib import Path

import numpy as np
import pytest
from reference.decoder import decode as decode_by_definition
from test_ngram import WORDS, write_arpa

from asr.decoder import Decoder, DecoderOptions, NgramModel
from asr.lexicon import Entry, Lexicon
from asr.phones import PhoneSet, UnknownPhone

PHONES = PhoneSet(("<blk>", "p", "t", "k", "s"))
WIDE = {"beam_size": 100_000, "beam_threshold": 200.0, "blank_skip_threshold": 1.0, "num_threads": 1}


def emissions(rng: np.random.Generator, frames: int, tokens: int = 5, peak: float = 2.0) -> np.ndarray:
    logits = rng.normal(0, peak, (frames, tokens))
    return (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)


def random_lexicon(rng: np.random.Generator, words: list[str], longest: int = 3) -> Lexicon:
    entries = []
    for word in words:
        for _ in range(rng.integers(1, 3)):
            phones = tuple(PHONES.phones[i] for i in rng.integers(0, 4, rng.integers(2, longest + 1)))
            entries.append(Entry(word=word, phones=phones, weight=float(rng.uniform(0.2, 1))))
    return Lexicon(tuple({(e.word, e.phones): e for e in entries}.values()))


def by_definition(
    log_probs: np.ndarray, lexicon: Lexicon, lm: NgramModel, options: DecoderOptions, most_words: int = 2
) -> list[tuple[tuple[str, ...], float]]:
    pronunciations = [
        (e.word, PHONES.encode(e.phones), options.word_score + math.log(e.weight) + e.boost)
        for e in lexicon.entries
    ]
    return decode_by_definition(
        log_probs, pronunciations, lambda w: sum(lm.score(w)), options.lm_weight, most_words
    )


def test_scores_are_sums_over_alignments_and_pronunciations(tmp_path: Path) -> None:
    # All n-grams are explicit and histories tell word sequences apart: nothing is approximated.
    for seed in range(25):
        rng = np.random.default_rng(seed)
        lm = NgramModel.read(close(write_arpa(tmp_path / f"{seed}.arpa", 3, seed, keep=1.0)))
        options = DecoderOptions(lm_weight=0.7, word_score=0.5, **WIDE)
        lexicon = random_lexicon(rng, WORDS[:3])
        log_probs = emissions(rng, 5)
        expected = by_definition(log_probs, lexicon, lm, options)
        found = Decoder(lexicon, lm, PHONES, options).decode(log_probs[None])[0]
        assert found[0].words == expected[0][0]
        assert found[0].score == pytest.approx(expected[0][1], abs=2e-3)


def test_nbest_scores_are_exact_for_one_pronunciation_each(tmp_path: Path) -> None:
    for seed in range(15):
        rng = np.random.default_rng(seed)
        lm = NgramModel.read(close(write_arpa(tmp_path / f"{seed}.arpa", 3, seed, keep=1.0)))
        options = DecoderOptions(lm_weight=0.7, word_score=0.5, nbest=4, **WIDE)
        lexicon = random_lexicon(rng, WORDS[:3])
        lexicon = Lexicon(tuple({e.word: e for e in lexicon.entries}.values()))
        log_probs = emissions(rng, 5)
        expected = by_definition(log_probs, lexicon, lm, options)
        found = Decoder(lexicon, lm, PHONES, options).decode(log_probs[None])[0]
        assert len(found) == min(4, len(expected))
        assert [h.words for h in found[:2]] == [words for words, _ in expected[:2]]
        for hypothesis in found:
            assert hypothesis.score == pytest.approx(dict(expected)[hypothesis.words], abs=2e-3)


def close(path: Path) -> Path:
    """The same model with backoff out of reach."""
    lines = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        fields = line.split("\t")
        lines.append("\t".join([*fields[:2], "-40"]) if len(fields) == 3 else line)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_best_words_with_backoff(tmp_path: Path) -> None:
    """Where backoff is in play the search may prefer it to an n-gram that is worse than it: rarely, and never
    by far."""
    agree, seeds = 0, 60
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        lm = NgramModel.read(write_arpa(tmp_path / f"{seed}.arpa", 1 + seed % 4, seed, sensible=True))
        options = DecoderOptions(lm_weight=0.7, word_score=0.5, **WIDE)
        lexicon = random_lexicon(rng, WORDS)
        log_probs = emissions(rng, 5)
        expected = by_definition(log_probs, lexicon, lm, options)
        found = Decoder(lexicon, lm, PHONES, options).decode(log_probs[None])[0][0]
        agree += found.words == expected[0][0]
        assert dict(expected)[found.words] > expected[0][1] - 1.0
    assert agree >= 0.95 * seeds


def test_hypothesis_is_consistent(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    lm = NgramModel.read(write_arpa(tmp_path / "lm.arpa", 3, 5))
    lexicon = random_lexicon(rng, WORDS)
    options = DecoderOptions(lm_weight=0.7, word_score=0.5, nbest=5, **WIDE)
    for hypothesis in Decoder(lexicon, lm, PHONES, options).decode(emissions(rng, 30)[None])[0]:
        assert hypothesis.lm_score == pytest.approx(sum(lm.score(hypothesis.words)), abs=1e-3)
        assert len(hypothesis.token_ids) == len(hypothesis.token_frames) == hypothesis.word_ends[-1]
        assert all(a < b for a, b in zip(hypothesis.token_frames, hypothesis.token_frames[1:], strict=False))
        sounds = {(e.word, e.phones) for e in lexicon.entries}
        first = 0
        for word, last in zip(hypothesis.words, hypothesis.word_ends, strict=True):
            assert (word, tuple(PHONES.symbols[t] for t in hypothesis.token_ids[first:last])) in sounds
            first = last


def spoken(*phones: str, gap: int = 1) -> np.ndarray:
    """Emissions that say these phones for sure, with `gap` blanks after each."""
    labels = [t for phone in phones for t in (PHONES.ids[phone], *[0] * gap)]
    log_probs = np.full((len(labels), len(PHONES)), math.log(0.001), np.float32)
    log_probs[np.arange(len(labels)), labels] = math.log(0.996)
    return log_probs


def test_more_homophones_than_anybody_keeps() -> None:
    words = [f"word{i}" for i in range(12)]
    lexicon = Lexicon(tuple(Entry(word=w, phones=("p", "t")) for w in words))
    decoder = Decoder(lexicon, None, PHONES, DecoderOptions(nbest=12))
    found = {h.words for h in decoder.decode(spoken("p", "t")[None])[0]}
    assert found == {(w,) for w in words}


def test_a_repeated_phone_across_words_needs_a_blank() -> None:
    lexicon = Lexicon((Entry(word="pot", phones=("p", "t")), Entry(word="top", phones=("t", "p"))))
    decoder = Decoder(lexicon, None, PHONES)
    assert decoder.decode(spoken("p", "t", "t", "p", gap=1)[None])[0][0].words == ("pot", "top")
    assert decoder.decode(spoken("p", "t", "p", gap=0)[None])[0][0].words != ("pot", "top")


def test_token_frames_are_where_the_phones_are() -> None:
    lexicon = Lexicon((Entry(word="pot", phones=("p", "t")), Entry(word="task", phones=("t", "s", "k"))))
    hypothesis = Decoder(lexicon, None, PHONES).decode(spoken("p", "t", "t", "s", "k", gap=2)[None])[0][0]
    assert hypothesis.words == ("pot", "task")
    assert hypothesis.token_frames == (0, 3, 6, 9, 12)
    assert hypothesis.word_ends == (2, 5)


def test_language_model_decides_between_homophones(tmp_path: Path) -> None:
    arpa = "\\data\\\nngram 1=4\nngram 2=1\n\n\\1-grams:\n-1\t<s>\t0\n-1\t</s>\n-1.5\ttwo\t0\n-1\ttoo\t0\n\n"
    (tmp_path / "lm.arpa").write_text(arpa + "\\2-grams:\n-0.1\ttwo two\n\n\\end\\\n", encoding="utf-8")
    lm = NgramModel.read(tmp_path / "lm.arpa")
    lexicon = Lexicon((Entry(word="two", phones=("t",)), Entry(word="too", phones=("t",))))
    decoder = Decoder(lexicon, lm, PHONES)
    assert decoder.decode(spoken("t")[None])[0][0].words == ("too",)
    assert decoder.decode(spoken("t", "t")[None])[0][0].words == ("two", "two")


def test_without_lexicon_phones_come_out() -> None:
    decoder = Decoder(None, None, PHONES)
    assert decoder.decode(spoken("s", "t", "t", "k")[None])[0][0].words == ("s", "t", "t", "k")


def test_batch_equals_single_and_threads_change_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    lm = NgramModel.read(write_arpa(tmp_path / "lm.arpa", 3, 1))
    lexicon = random_lexicon(rng, WORDS)
    lengths = [40, 0, 1, 17, 33]
    batch = np.stack([emissions(rng, 40) for _ in lengths])
    alone = Decoder(lexicon, lm, PHONES, DecoderOptions(num_threads=1))
    singles = [alone.decode(row[None, :n])[0] for row, n in zip(batch, lengths, strict=True)]
    for threads in (1, 2, 4):
        decoder = Decoder(lexicon, lm, PHONES, DecoderOptions(num_threads=threads))
        assert decoder.decode(batch, lengths) == singles
        order = [3, 1, 4, 0, 2]
        assert decoder.decode(batch[order], [lengths[i] for i in order]) == [singles[i] for i in order]


def test_one_decoder_serves_many_threads(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    lm = NgramModel.read(write_arpa(tmp_path / "lm.arpa", 3, 2))
    decoder = Decoder(random_lexicon(rng, WORDS), lm, PHONES)
    rows = [emissions(rng, 50)[None] for _ in range(20)]
    expected = [decoder.decode(row) for row in rows]
    wrong: list[int] = []

    def work() -> None:
        wrong.extend(i for i, row in enumerate(rows) if decoder.decode(row) != expected[i])

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_crowded_beam_degrades_and_is_counted() -> None:
    """Equal scores everywhere, and more places than there is room for: the search goes on with what fits."""
    rng = np.random.default_rng(3)
    many = PhoneSet(("<blk>", *(f"x{i}" for i in range(60))))
    sounds = rng.integers(0, 60, (20_000, 4))
    lexicon = Lexicon(
        tuple(Entry(word=f"w{i}", phones=tuple(many.phones[k] for k in row)) for i, row in enumerate(sounds))
    )
    decoder = Decoder(lexicon, None, many, DecoderOptions(beam_size=100, nbest=3))
    flat = decoder.decode(np.full((1, 40, 61), -math.log(61), np.float32))[0]
    assert decoder.overflows > 0
    assert math.isfinite(flat[0].score)
    # Nothing of the crowd is left behind for the next utterance.
    said = np.full((1, 8, 61), math.log(1e-4), np.float32)
    said[0, np.arange(8), np.stack([1 + sounds[7], np.zeros(4, int)], 1).ravel()] = math.log(0.99)
    before = decoder.overflows
    assert decoder.decode(said)[0][0].words == ("w7",)
    assert decoder.overflows == before


def test_blank_runs_passed_in_one_step_change_little(tmp_path: Path) -> None:
    lexicon = Lexicon((Entry(word="pot", phones=("p", "t")), Entry(word="task", phones=("t", "s", "k"))))
    log_probs = spoken("p", "t", "t", "s", "k", gap=6)
    scores = []
    for threshold in (1.0, 0.99):
        decoder = Decoder(lexicon, None, PHONES, DecoderOptions(blank_skip_threshold=threshold))
        found = decoder.decode(log_probs[None])[0][0]
        assert found.words == ("pot", "task")
        scores.append(found.score)
    assert scores[0] == pytest.approx(scores[1], abs=0.05)


def test_minus_infinity_is_a_probability(tmp_path: Path) -> None:
    lexicon = Lexicon((Entry(word="pot", phones=("p", "t")),))
    log_probs = spoken("p", "t")
    log_probs[log_probs < -1] = -np.inf
    assert Decoder(lexicon, None, PHONES).decode(log_probs[None])[0][0].words == ("pot",)
    found = Decoder(lexicon, None, PHONES).decode(np.full((1, 7, 5), -np.inf, np.float32))[0][0]
    assert math.isfinite(found.score)


def test_bad_input_is_refused() -> None:
    decoder = Decoder(Lexicon((Entry(word="pot", phones=("p", "t")),)), None, PHONES)
    good = spoken("p", "t")[None]
    with pytest.raises(ValueError, match="NaN"):
        decoder.decode(np.where(good < -1, np.nan, good))
    with pytest.raises(ValueError, match="tokens"):
        decoder.decode(good[:, :, :4])
    with pytest.raises(ValueError, match="shape"):
        decoder.decode(good[0])
    with pytest.raises(ValueError, match="lengths"):
        decoder.decode(good, [5])
    with pytest.raises(ValueError, match="lengths"):
        decoder.decode(good, [1, 1])
    with pytest.raises(ValueError, match="no words"):
        Decoder(Lexicon(()), None, PHONES)
    with pytest.raises(UnknownPhone, match="nearest"):
        Decoder(Lexicon((Entry(word="x", phones=("ø",)),)), None, PHONES)
    with pytest.raises(ValueError, match="300 phones"):
        Decoder(Lexicon((Entry(word="x", phones=("p",) * 300),)), None, PHONES)


@pytest.mark.parametrize(
    "bad", [{"beam_size": 0}, {"beam_threshold": 0.0}, {"nbest": 0}, {"blank_skip_threshold": 0.0}]
)
def test_options_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        DecoderOptions(**bad)  # type: ignore[arg-type]


def test_large_phone_sets_decode_the_same() -> None:
    """Masks of several words: the same phones among 150."""
    symbols = ("<blk>", *(f"x{i}" for i in range(145)), "p", "t", "k", "s")
    large = PhoneSet(symbols)
    rng = np.random.default_rng(4)
    lexicon = random_lexicon(rng, [f"w{i}" for i in range(30)])
    small_probs = emissions(rng, 40)
    large_probs = np.full((40, len(symbols)), -50.0, np.float32)
    large_probs[:, [0, 146, 147, 148, 149]] = small_probs
    few = Decoder(lexicon, None, PHONES).decode(small_probs[None])[0][0]
    many = Decoder(lexicon, None, large).decode(large_probs[None])[0][0]
    assert many.words == few.words
    assert many.score == pytest.approx(few.score, abs=1e-3)


@pytest.mark.parametrize("nbest", [1, 3])
def test_stream_equals_one_piece(tmp_path: Path, nbest: int) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        lm = NgramModel.read(write_arpa(tmp_path / f"{seed}.arpa", 3, seed))
        decoder = Decoder(
            random_lexicon(rng, WORDS), lm, PHONES, DecoderOptions(nbest=nbest, blank_skip_threshold=0.6)
        )
        log_probs = emissions(rng, 60)
        whole = decoder.decode(log_probs[None])[0]
        stream = decoder.stream()
        at = 0
        while at < len(log_probs):
            size = int(rng.integers(0, 12))
            stream.accept(log_probs[at : at + size])
            at += size
            if rng.random() < 0.5:
                assert stream.partial().words == decoder.decode(log_probs[None, :at])[0][0].words
        pieces = stream.finish()
        assert [h.words for h in pieces] == [h.words for h in whole]
        assert [h.score for h in pieces] == pytest.approx([h.score for h in whole], abs=1e-3)
        assert pieces[0].token_frames == whole[0].token_frames


def test_stream_refuses_what_decode_refuses() -> None:
    stream = Decoder(None, None, PHONES).stream()
    assert stream.partial().words == ()
    with pytest.raises(ValueError, match="NaN"):
        stream.accept(np.full((3, len(PHONES)), np.nan, np.float32))
    with pytest.raises(ValueError, match="tokens"):
        stream.accept(np.zeros((3, 2), np.float32))


def test_unknown_words_are_marked_and_known_ones_stay() -> None:
    lexicon = Lexicon((Entry(word="pot", phones=("p", "t")), Entry(word="task", phones=("t", "s", "k"))))
    said = spoken("p", "t", "k", "s", "k", "p", "t", "s", "k", gap=1)[None]
    marking = Decoder(lexicon, None, PHONES, DecoderOptions(unknown="mark", unknown_score=-4.0, nbest=2))
    found = marking.decode(said)[0]
    assert found[0].words == ("pot", "<kskp>", "task")
    assert found[0].token_ids == tuple(PHONES.ids[p] for p in "ptkskptsk")
    assert found[0].token_frames == tuple(range(0, 18, 2))
    assert found[0].word_ends == (2, 6, 9)
    assert found[0].score > found[1].score
    known = spoken("p", "t", "t", "s", "k")[None]
    assert marking.decode(known)[0][0].words == ("pot", "task")
    off = Decoder(lexicon, None, PHONES).decode(said)[0][0]
    assert all(not word.startswith("<") for word in off.words)


def test_unknown_words_take_their_score() -> None:
    """The same path under two unknown scores differs by just that."""
    lexicon = Lexicon((Entry(word="pot", phones=("p", "t")),))
    said = spoken("k", "s", "k", "s", gap=1)[None]
    scores = [
        Decoder(lexicon, None, PHONES, DecoderOptions(unknown="mark", unknown_score=x)).decode(said)[0][0]
        for x in (-3.0, -5.0)
    ]
    assert scores[0].words == scores[1].words == ("<ksks>",)
    assert scores[0].score == pytest.approx(scores[1].score + 2.0, abs=1e-3)
    assert scores[0].acoustic_score == pytest.approx(scores[1].acoustic_score, abs=1e-2)

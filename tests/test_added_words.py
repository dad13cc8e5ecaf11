"""A word that is added is as good as one that was there from the start, and a removed one never was."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from test_decoder import PHONES, WIDE, close, emissions, random_lexicon, spoken
from test_ngram import WORDS, write_arpa

from asr.decoder import Decoder, DecoderOptions, NgramModel
from asr.lexicon import Entry, Lexicon
from asr.phones import UnknownPhone


def found(decoder: Decoder, rows: list[np.ndarray]) -> list[tuple[tuple[str, ...], float]]:
    return [(h.words, h.score) for h in (decoder.decode(row[None])[0][0] for row in rows)]


def exactly(expected: list[tuple[tuple[str, ...], float]]) -> list[tuple[tuple[str, ...], object]]:
    return [(words, pytest.approx(score, abs=2e-3)) for words, score in expected]


def restore(decoder: Decoder, base: Lexicon, new: list[Entry]) -> None:
    """Take the new words out again, and put back those that the base had already."""
    for word in {e.word for e in new}:
        decoder.remove(word)
        for entry in base.entries:
            if entry.word == word:
                decoder.add_entry(entry)


@pytest.mark.parametrize("seed", range(12))
def test_added_equals_compiled(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lm = NgramModel.read(close(write_arpa(tmp_path / "lm.arpa", 3, seed, keep=1.0)))
    options = DecoderOptions(lm_weight=0.7, word_score=0.5, **WIDE)
    base = random_lexicon(rng, WORDS[:3])
    new = [*random_lexicon(rng, ["d"]).entries, Entry(word="b", phones=("t", "t", "s"), boost=0.3)]
    rows = [emissions(rng, int(rng.integers(4, 6))) for _ in range(8)]
    decoder = Decoder(base, lm, PHONES, options)
    before = found(decoder, rows)
    for entry in new:
        decoder.add_entry(entry)
    assert found(decoder, rows) == exactly(
        found(Decoder(base + Lexicon(tuple(new)), lm, PHONES, options), rows)
    )
    restore(decoder, base, new)
    assert found(decoder, rows) == exactly(before)


def test_added_equals_compiled_with_backoff_and_like(tmp_path: Path) -> None:
    """Where several words lead to one history the order of meeting decides which sums survive: nearly
    equal."""
    agree = total = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        lm = NgramModel.read(write_arpa(tmp_path / f"{seed}.arpa", 3, seed, sensible=True))
        options = DecoderOptions(lm_weight=0.7, word_score=0.5, unknown_word_score=-4.0, **WIDE)
        base = random_lexicon(rng, WORDS[:3])
        new = [
            *random_lexicon(rng, ["d", "new"]).entries,
            Entry(word="like", phones=("k", "s", "k"), like="a", boost=0.5),
            Entry(word="like", phones=("p", "k"), like="b", weight=0.4),
        ]
        rows = [emissions(rng, int(rng.integers(4, 14))) for _ in range(6)]
        decoder = Decoder(base, lm, PHONES, options)
        for entry in new:
            decoder.add_entry(entry)
        compiled = Decoder(base + Lexicon(tuple(new)), lm, PHONES, options)
        for (words, score), (other, expected) in zip(
            found(decoder, rows), found(compiled, rows), strict=True
        ):
            agree += words == other
            total += 1
            assert score == pytest.approx(expected, abs=0.7)
    assert agree >= 0.95 * total


def test_like_stands_where_the_other_word_stands(tmp_path: Path) -> None:
    arpa = "\\data\\\nngram 1=5\nngram 2=1\n\n\\1-grams:\n-1\t<s>\t0\n-1\t</s>\n"
    arpa += "-3\ttea\t0\n-1\tdrink\t-1\n-2\tsock\t0\n\n"
    (tmp_path / "lm.arpa").write_text(arpa + "\\2-grams:\n-0.1\tdrink tea\n\n\\end\\\n", encoding="utf-8")
    lexicon = Lexicon(
        (
            Entry(word="drink", phones=("p",)),
            Entry(word="tea", phones=("t", "t")),
            Entry(word="sock", phones=("s", "k")),
        )
    )
    decoder = Decoder(lexicon, NgramModel.read(tmp_path / "lm.arpa"), PHONES, DecoderOptions(lm_weight=1.0))
    said = spoken("p", "s", "k")[None]
    assert decoder.decode(said)[0][0].words == ("drink", "sock")
    decoder.add("cider", [("s", "k")])
    assert decoder.decode(said)[0][0].words == ("drink", "sock")
    decoder.remove("cider")
    decoder.add("cider", [("s", "k")], like="tea")
    hypothesis = decoder.decode(said)[0][0]
    assert hypothesis.words == ("drink", "cider")
    assert hypothesis.lm_score == pytest.approx((-1.0 - 0.1 - 1.0) * np.log(10), abs=1e-3)


def test_removed_from_the_compiled_lexicon() -> None:
    lexicon = Lexicon(
        (
            Entry(word="pot", phones=("p", "t")),
            Entry(word="pots", phones=("p", "t", "s")),
            Entry(word="tok", phones=("t", "k")),
        )
    )
    decoder = Decoder(lexicon, None, PHONES)
    said = spoken("p", "t", "s")[None]
    assert decoder.decode(said)[0][0].words == ("pots",)
    decoder.remove("pots")
    assert "pots" not in decoder.decode(said)[0][0].words
    decoder.add("pots", [("p", "t", "s")])
    assert decoder.decode(said)[0][0].words == ("pots",)
    decoder.remove("pots")
    assert "pots" not in decoder.decode(said)[0][0].words
    with pytest.raises(ValueError, match="pots"):
        decoder.remove("pots")


def test_a_pronunciation_added_again_takes_the_new_score() -> None:
    decoder = Decoder(Lexicon((Entry(word="pot", phones=("p", "t")),)), None, PHONES)
    said = spoken("k", "s")[None]
    decoder.add("cs", [("k", "s")], boost=3.0)
    first = decoder.decode(said)[0][0].score
    decoder.add("cs", [("k", "s")], boost=1.0)
    assert decoder.decode(said)[0][0].score == pytest.approx(first - 2.0, abs=1e-3)


def test_a_compiled_pronunciation_added_again_takes_the_new_score() -> None:
    decoder = Decoder(Lexicon((Entry(word="pot", phones=("p", "t"), boost=2.0),)), None, PHONES)
    said = spoken("p", "t")[None]
    first = decoder.decode(said)[0][0].score
    decoder.add("pot", [("p", "t")], boost=-1.0)
    assert decoder.decode(said)[0][0].score == pytest.approx(first - 3.0, abs=1e-3)


def test_bad_words_are_refused() -> None:
    decoder = Decoder(Lexicon((Entry(word="pot", phones=("p", "t")),)), None, PHONES)
    with pytest.raises(UnknownPhone):
        decoder.add("x", [("ø",)])
    with pytest.raises(ValueError, match="phones"):
        decoder.add("x", [()])
    with pytest.raises(ValueError, match="nobody"):
        decoder.remove("nobody")


def test_decoding_while_words_come_and_go(tmp_path: Path) -> None:
    """A decode sees each word wholly or not at all: every result is one of the two that a still vocabulary
    gives."""
    rng = np.random.default_rng(0)
    lm = NgramModel.read(write_arpa(tmp_path / "lm.arpa", 3, 0))
    base = random_lexicon(rng, WORDS)
    rows = [emissions(rng, 25) for _ in range(4)]
    word, phones = "sks", [("s", "k", "s")]
    still = Decoder(base, lm, PHONES)
    expected = [{still.decode(row[None])[0][0].words} for row in rows]
    still.add(word, phones, boost=8.0)
    for seen, row in zip(expected, rows, strict=True):
        seen.add(still.decode(row[None])[0][0].words)
    assert any(len(seen) == 2 for seen in expected)
    decoder = Decoder(base, lm, PHONES)
    stop = threading.Event()
    wrong: list[tuple[str, ...]] = []

    def work() -> None:
        while not stop.is_set():
            for seen, row in zip(expected, rows, strict=True):
                found = decoder.decode(row[None])[0][0].words
                if found not in seen:
                    wrong.append(found)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        decoder.add(word, phones, boost=8.0)
        decoder.remove(word)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_ten_thousand_words_are_added_quickly() -> None:
    rng = np.random.default_rng(1)
    decoder = Decoder(Lexicon((Entry(word="pot", phones=("p", "t")),)), None, PHONES)
    sounds = [tuple(PHONES.phones[i] for i in rng.integers(0, 4, 10)) for _ in range(10_000)]
    began = time.perf_counter()
    for i, phones in enumerate(sounds):
        decoder.add(f"w{i}", [phones])
    assert (time.perf_counter() - began) / len(sounds) < 1e-3
    assert decoder.decode(spoken(*sounds[777])[None])[0][0].words == ("w777",)


def test_extra_words_are_heard_in_one_call_alone(tmp_path: Path) -> None:
    lm = NgramModel.read(write_arpa(tmp_path / "lm.arpa", 3, 0))
    lexicon = Lexicon((Entry(word="a", phones=("p", "t")), Entry(word="b", phones=("k", "s"))))
    decoder = Decoder(lexicon, lm, PHONES)
    said = spoken("t", "s", "k")[None]
    before = decoder.decode(said)
    extra = [
        Entry(word="new", phones=("t", "s", "k"), boost=5.0),
        Entry(word="a", phones=("p", "t"), boost=1.0),
    ]
    assert decoder.decode(said, extra=extra)[0][0].words == ("new",)
    assert decoder.decode(said) == before
    decoder.add("mine", [("t", "s", "k")], boost=9.0)
    assert decoder.decode(said, extra=extra)[0][0].words == ("mine",)
    a = spoken("p", "t")[None]
    plain = decoder.decode(a)[0][0].score
    assert decoder.decode(a, extra=extra)[0][0].score == pytest.approx(plain + 1.0, abs=1e-3)


def test_extra_words_leave_no_trace_in_the_others(tmp_path: Path) -> None:
    """Also where they have many forms."""
    decoder = new_word_decoder(tmp_path)
    decoder.decode(spoken("t")[None], extra=[Entry(word="extra", phones=LONG)])
    mine = [Entry(word="mine", phones=phones) for phones in (("k", "s"), ("s", "k"), ("p", "k"))]
    for entry in mine:
        decoder.add_entry(entry)
    for entry in mine:
        said = spoken(*entry.phones)[None]
        assert decoder.decode(said)[0][0].words == ("mine",)
        decoder.take_back(entry)
        assert decoder.decode(said)[0][0].words != ("mine",)


def test_an_entry_taken_back_was_never_there(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    lm = NgramModel.read(write_arpa(tmp_path / "lm.arpa", 3, 3))
    base = random_lexicon(rng, WORDS)
    rows = [emissions(rng, 20) for _ in range(5)]
    decoder = Decoder(base, lm, PHONES)
    before = found(decoder, rows)
    replaced = base.entries[0]
    added = [
        Entry(word=replaced.word, phones=replaced.phones, boost=4.0),
        Entry(word=replaced.word, phones=("s", "s", "s", "t"), boost=4.0),
        Entry(word="new", phones=("k", "k"), boost=4.0),
    ]
    for entry in added:
        decoder.add_entry(entry)
    assert found(decoder, rows) != before
    for entry in added:
        decoder.take_back(entry)
    assert found(decoder, rows) == before


LONG = ("p", "t", "k", "s", "p", "s", "t")


def without(position: int) -> tuple[str, ...]:
    return (*LONG[:position], *LONG[position + 1 :])


def new_word_decoder(tmp_path: Path, *compiled: Entry, missing: float | None = -1.5) -> Decoder:
    """Knows `tea` from the language model, and `compiled`."""
    arpa = "\\data\\\nngram 1=3\n\n\\1-grams:\n-1\t<s>\n-1\t</s>\n-1\ttea\n\n\\end\\\n"
    (tmp_path / "lm.arpa").write_text(arpa, encoding="utf-8")
    options = DecoderOptions(lm_weight=1.0, word_score=0.0, missing_phone_score=missing, unknown_words=1)
    lexicon = Lexicon((Entry(word="tea", phones=("t", "t")), *compiled))
    return Decoder(lexicon, NgramModel.read(tmp_path / "lm.arpa"), PHONES, options)


def test_sounds_of_a_word_taken_back_lead_nowhere(tmp_path: Path) -> None:
    """A narrow beam would keep them alone, up to where the word ended."""
    lm = NgramModel.read(write_arpa(tmp_path / "lm.arpa", 3, 0))
    lexicon = Lexicon(tuple(Entry(word=w, phones=("k",) * i) for i, w in enumerate(WORDS[:3], 1)))
    options = DecoderOptions(beam_threshold=4.0, unknown_word_score=-1.0)
    decoder = Decoder(lexicon, lm, PHONES, options)
    decoder.add_entry(Entry(word="other", phones=("k",) * 6 + ("t",)))
    rows = spoken("p", "t", "s", "p", "t", "s")
    rows[:, PHONES.ids["k"]] = -4.0
    before = found(decoder, [rows])
    new = Entry(word="new", phones=("p", "t", "s", "p", "t", "s", "s"))
    decoder.add_entry(new)
    stream = decoder.stream()
    decoder.take_back(new)
    assert found(decoder, [rows]) == before
    decoder.add_entry(new)
    longer = np.concatenate([rows, spoken("s")])
    assert found(decoder, [longer])[0][0] == ("new",)
    stream.accept(longer)
    assert [h.words for h in stream.finish()] == [("new",)]  # it began when the word was there

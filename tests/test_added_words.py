"""A word that is added is as good as one that was there from the start, and a removed one never was."""

import itertools
import threading
import time
from dataclasses import replace
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


def test_a_long_new_word_may_lack_a_phone(tmp_path: Path) -> None:
    whole, lacking = spoken(*LONG)[None], [spoken(*without(i))[None] for i in range(len(LONG))]
    decoder = new_word_decoder(tmp_path)
    decoder.add("new", [LONG])
    full = decoder.decode(whole)[0][0]
    assert full.words == ("new",) and len(full.token_ids) == len(LONG)
    for i, said in enumerate(lacking):
        hypothesis = decoder.decode(said)[0][0]
        assert hypothesis.words == ("new",)
        assert tuple(PHONES.symbols[t] for t in hypothesis.token_ids) == without(i)
        # The score of the word itself, and what the missing phone costs.
        others = hypothesis.score - hypothesis.acoustic_score
        assert others == pytest.approx(full.score - full.acoustic_score - 1.5, abs=1e-3)
    decoder.remove("new")
    assert all("new" not in decoder.decode(said)[0][0].words for said in [whole, *lacking])
    strict = new_word_decoder(tmp_path, missing=None)
    strict.add("new", [LONG])
    assert strict.decode(whole)[0][0].score == pytest.approx(full.score, abs=0.01)
    heard = strict.decode(lacking[2])[0][0]  # the word with a phone that nobody said, or no word
    assert heard.score < full.score - 5 and len(heard.token_ids) in (0, len(LONG))


def test_short_and_known_words_lack_nothing(tmp_path: Path) -> None:
    decoder = new_word_decoder(tmp_path, Entry(word="long tea", phones=LONG, like="tea"))
    assert decoder.decode(spoken(*without(3))[None])[0][0].words == ("long tea",)
    decoder.remove("long tea")
    decoder.add("tea", [LONG])  # the language model has it
    assert decoder.decode(spoken(*LONG)[None])[0][0].words == ("tea",)
    assert len(decoder.decode(spoken(*without(3))[None])[0][0].token_ids) != len(LONG) - 1
    decoder.add("short", [LONG[:5]])
    assert decoder.decode(spoken(*LONG[:5])[None])[0][0].words == ("short",)
    assert "short" not in decoder.decode(spoken(*LONG[:4])[None])[0][0].words


def test_with_a_phone_missing_added_equals_compiled(tmp_path: Path) -> None:
    entries = [
        Entry(word="new", phones=LONG, boost=0.5),
        Entry(word="new", phones=("s", "s", "t")),
        Entry(word="other", phones=tuple(reversed(LONG))),
    ]
    rows = [spoken(*without(i)) for i in range(len(LONG))] + [spoken(*reversed(without(4)))]
    decoder = new_word_decoder(tmp_path)
    before = found(decoder, rows)
    for entry in entries:
        decoder.add_entry(entry)
    compiled = new_word_decoder(tmp_path, *entries)
    with_all = found(compiled, rows)
    assert found(decoder, rows) == exactly(with_all)
    compiled.add_entry(entries[2])  # the same again: it takes the place of the compiled one and its forms
    assert found(compiled, rows) == exactly(with_all)
    compiled.take_back(entries[2])
    assert found(compiled, rows) == exactly(with_all)
    for entry in entries:
        decoder.take_back(entry)
    assert found(decoder, rows) == exactly(before)


def test_a_rare_word_that_is_added_stands_at_least_where_new_words_stand(tmp_path: Path) -> None:
    """Two words that sound alike, of which the language model knows the second, but prefers the first."""
    arpa = "\\data\\\nngram 1=4\nngram 2=1\n\n\\1-grams:\n-1\t<s>\t0\n-1\t</s>\n-1\tpot\t0\n-4\ttea\t0\n\n"
    (tmp_path / "lm.arpa").write_text(arpa + "\\2-grams:\n-0.2\ttea pot\n\n\\end\\\n", encoding="utf-8")
    lm, ln10 = NgramModel.read(tmp_path / "lm.arpa"), np.log(10)
    tea, pot = Entry(word="tea", phones=LONG), Entry(word="pot", phones=LONG)

    def decoder(at_least_unknown: bool = True, score: float = -2.0, nbest: int = 1) -> Decoder:
        options = DecoderOptions(
            unknown_word_score=score, unknown_words=2, word_score=0.5, lm_weight=0.7, nbest=nbest,
            missing_phone_score=-1.0, added_at_least_unknown=at_least_unknown,
        )  # fmt: skip
        return Decoder(Lexicon((tea, pot)), lm, PHONES, options)

    said = spoken(*LONG)[None]
    for nbest in (1, 5):
        there = decoder(nbest=nbest)
        before = there.decode(said)[0]
        assert before[0].words == ("pot",)
        there.add_entry(tea)
        hypothesis = there.decode(said)[0][0]
        assert hypothesis.words == ("tea",)
        # Alone it has the share of two.
        assert hypothesis.lm_score == pytest.approx(-2.0 + np.log(2) - ln10, abs=1e-3)
        assert hypothesis.score - hypothesis.acoustic_score == pytest.approx(
            0.7 * hypothesis.lm_score + 0.5, abs=1e-3
        )
        if nbest > 1:  # else the search alone chooses, which knows of no word what follows an unknown one
            both = there.decode(np.concatenate([said[0], said[0]])[None])[0][0]
            assert both.words == ("tea", "pot")
            assert both.lm_score == pytest.approx(-2.0 + np.log(2) - 0.2 * ln10 - ln10, abs=1e-3)
        lacking = there.decode(spoken(*without(3))[None])[0][0]
        assert lacking.words == ("tea",) and len(lacking.token_ids) == len(LONG) - 1
        assert lacking.score - lacking.acoustic_score == pytest.approx(
            hypothesis.score - hypothesis.acoustic_score - 1.0, abs=1e-3
        )
        there.take_back(tea)
        after = there.decode(said)[0]
        assert [(h.words, h.score) for h in after] == [(h.words, h.score) for h in before]
    for same in (decoder(at_least_unknown=False), decoder(score=-20.0), decoder()):
        same.add_entry(replace(tea, like="tea") if same.options.unknown_word_score == -2.0 else tea)
        assert same.decode(said)[0][0].words == ("pot",)
    both = decoder()
    both.add_entry(tea)
    both.add("unheard of", [("k", "k")])  # now each new word has one of two shares
    assert both.decode(said)[0][0].lm_score == pytest.approx(-2.0 - ln10, abs=1e-3)
    heard = both.decode(said, extra=[replace(tea, boost=1.0)])[0][0]
    assert heard.score - heard.acoustic_score == pytest.approx(0.7 * heard.lm_score + 1.5, abs=1e-3)


def test_many_known_words_are_few_trees_after_the_empty_history(tmp_path: Path) -> None:
    """Each path that has backed off looks into all of these in every frame."""
    words = ["".join(letters) for letters in itertools.islice(itertools.product("abcdefg", repeat=3), 300)]
    lines = [f"{-1 - i / 60:.3f}\t{word}\t-0.1" for i, word in enumerate(words)]
    pairs = [f"-0.5\t{a} {b}" for a, b in itertools.pairwise(words)]
    arpa = f"\\data\\\nngram 1={len(words) + 2}\nngram 2={len(pairs)}\n\n\\1-grams:\n-1\t<s>\n-1\t</s>\n"
    arpa += "\n".join([*lines, "", "\\2-grams:", *pairs, "", "\\end\\", ""])
    (tmp_path / "lm.arpa").write_text(arpa, encoding="utf-8")
    lexicon = Lexicon((Entry(word="aaa", phones=("p",) * 6),))
    options = DecoderOptions(lm_weight=0.5, word_score=0.0)
    decoder = Decoder(lexicon, NgramModel.read(tmp_path / "lm.arpa"), PHONES, options)
    said = itertools.product("ptks", repeat=5)
    for word, phones in zip(words, said, strict=False):
        decoder.add(word.upper(), [phones])
    added = decoder._live.view.added
    link, trees = int(added.heads[0]), 0
    while link >= 0:
        link, trees = int(added.links["next"][link]), trees + 1
    assert 3 <= trees <= 10
    for i in (1, 150, 299):
        phones = next(itertools.islice(itertools.product("ptks", repeat=5), i, None))
        hypothesis = decoder.decode(spoken(*phones)[None])[0][0]
        assert hypothesis.words == (words[i].upper(),)
        expected = decoder._lm.score([words[i]])  # type: ignore[union-attr]
        assert hypothesis.lm_score == pytest.approx(sum(expected), abs=1e-3)


def test_few_new_words_share_what_many_would_have(tmp_path: Path) -> None:
    arpa = "\\data\\\nngram 1=3\n\n\\1-grams:\n-1\t<s>\n-1\t</s>\n-1\ttea\n\n\\end\\\n"
    (tmp_path / "lm.arpa").write_text(arpa, encoding="utf-8")
    lm = NgramModel.read(tmp_path / "lm.arpa")
    options = DecoderOptions(lm_weight=0.5, word_score=0.0, unknown_words=8)
    tea = Entry(word="tea", phones=("t", "t"))
    new = [Entry(word=f"new{i}", phones=("k", "s", p, q)) for i in range(3) for p, q in [("pts"[i], "k")]]
    decoder = Decoder(Lexicon((tea,)), lm, PHONES, options)
    said = spoken(*new[0].phones)[None]

    def score(decoder: Decoder) -> float:
        """Of the first new word, without what it sounds like."""
        hypothesis = decoder.decode(said)[0][0]
        assert hypothesis.words == ("new0",)
        return hypothesis.score - hypothesis.acoustic_score

    decoder.add_entry(new[0])
    alone = score(decoder)
    assert alone == pytest.approx(score(Decoder(Lexicon((tea, new[0])), lm, PHONES, options)), abs=1e-3)
    running = decoder.stream()
    for entry in new[1:]:
        decoder.add_entry(entry)
    decoder.add("new1", [("p", "p", "p")])  # another way to say it is no other word
    assert score(decoder) == pytest.approx(alone - 0.5 * np.log(3), abs=1e-3)
    every = Decoder(Lexicon((tea, *new)), lm, PHONES, options)
    assert score(decoder) == pytest.approx(score(every), abs=1e-3)
    running.accept(said[0])
    found = running.finish()[0]
    assert found.score - found.acoustic_score == pytest.approx(alone, abs=1e-3)  # it keeps to its version
    for i in range(9):
        decoder.add(f"more{i}", [("t", *"p" * i, "k", "t")])
    many = score(decoder)
    assert many == pytest.approx(alone - 0.5 * np.log(8), abs=1e-3)
    decoder.add("even more", [("s", "s", "s")])
    assert score(decoder) == pytest.approx(many, abs=1e-3)
    for word in ["new1", "new2", "even more", *(f"more{i}" for i in range(9))]:
        decoder.remove(word)
    assert score(decoder) == pytest.approx(alone, abs=1e-3)
    extra = [Entry(word="for once", phones=("s", "k", "s"))]
    found = decoder.decode(said, extra=extra)[0][0]
    assert found.score - found.acoustic_score == pytest.approx(alone - 0.5 * np.log(2), abs=1e-3)
    assert score(decoder) == pytest.approx(alone, abs=1e-3)

"""What an added word scores: few share what many would have, a phone may be missing, a rare word is no worse
than an unknown one."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_added_words import LONG, exactly, found, new_word_decoder, without
from test_decoder import PHONES, spoken

from asr.decoder import Decoder, DecoderOptions, NgramModel
from asr.lexicon import Entry, Lexicon


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

"""Spelling from sounds: pairs of letters and phones, the n-gram model over them, the search."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
from reference.words import cuts

from asr import paths
from asr.lexicon import read_entries
from asr.metrics import align, count_errors
from asr.pairs import _SHAPES, MOST_TOKENS, cut_words, learn_pairs, letters_of, phones_of
from asr.phones import PhoneSet
from asr.spelling import _BEGIN, _END, Spelling, _ngrams

PHONES = PhoneSet.read(paths.PRETRAINED / "phones.txt")
WORDS = {
    "ship": "ʃ ɪ p", "shop": "ʃ ɑː p", "posh": "p ɑː ʃ", "hips": "h ɪ p s", "pit": "p ɪ t", "top": "t ɑː p",
    "box": "b ɑː k s", "pox": "p ɑː k s", "hot": "h ɑː t", "hit": "h ɪ t", "tip": "t ɪ p", "bit": "b ɪ t",
    "mix": "m ɪ k s", "his": "h ɪ z", "bob": "b ɑː b", "mob": "m ɑː b", "fish": "f ɪ ʃ", "fit": "f ɪ t",
}  # fmt: skip
TOY = [(word, PHONES.encode(PHONES.parse(said))) for word, said in WORDS.items()]


def named(pairs: np.ndarray, cut: np.ndarray) -> list[tuple[str, str]]:
    found = []
    for pair in pairs[cut]:
        first, second = phones_of(pair) % MOST_TOKENS, phones_of(pair) // MOST_TOKENS
        said = PHONES.symbols[first] + (f" {PHONES.symbols[second]}" if second else "")
        found.append((said, letters_of(pair)))
    return found


def test_letters_find_the_phones_they_write():
    pairs, probability = learn_pairs(TOY)
    assert probability.sum() == pytest.approx(1) and (np.diff(pairs) > 0).all()
    ship, box = cut_words([TOY[0], TOY[6]], pairs, probability)
    assert named(pairs, ship) == [("ʃ", "sh"), ("ɪ", "i"), ("p", "p")]
    assert named(pairs, box) in (
        [("b", "b"), ("ɑː", "o"), ("k s", "x")],
        [("b", "b"), ("ɑː", "o"), ("k", "x"), ("s", "")],
    )
    [none] = cut_words([("zzz", TOY[0][1])], pairs, probability)
    assert not len(none)


def test_a_cut_is_the_best_of_all():
    pairs, probability = learn_pairs(TOY)
    scores = {tuple(named(pairs, np.array([i]))[0]): math.log(p) for i, p in enumerate(probability)}
    for word, tokens in TOY:
        [cut] = cut_words([(word, tokens)], pairs, probability)
        found = sum(scores[pair] for pair in named(pairs, cut))
        best = -math.inf
        for way in cuts(tuple(tokens), word, [tuple(shape) for shape in _SHAPES.tolist()]):
            pieces = [(" ".join(PHONES.symbols[t] for t in said), letters) for said, letters in way]
            best = max(best, sum(scores.get(piece, -math.inf) for piece in pieces))
        assert found == pytest.approx(best)


def test_what_may_follow_adds_up_to_one():
    strings = [np.array(s) for s in ([2, 3], [2, 3, 4], [3, 2], [2, 3, 3, 4], [4])]
    model = Spelling(np.zeros(3, np.int64), *_ngrams(strings, size=5, order=3))
    everything = np.arange(5)
    scores, _ = model._step(np.arange(len(model.item)), everything)
    ends = model.item == _END  # after the end comes nothing
    assert np.exp(scores[~ends]).sum(1) == pytest.approx(1, abs=1e-5)
    # At the begin mostly 2, and then 3; what never was is still possible, but for another begin.
    _, to = model._step(np.array([1 + _BEGIN]), np.array([2]))
    after_two = scores[to[0, 0]]
    assert scores[1 + _BEGIN].argmax() == 2 and after_two.argmax() == 3
    assert after_two[_BEGIN] < -60 and (after_two[_END:] > -10).all()


def test_new_words_are_spelt_by_the_pattern_of_others(tmp_path: Path):
    model = Spelling.train(TOY, order=3)
    spelt = {
        said: model.spell(PHONES.encode(PHONES.parse(said)), 3)
        for said in ("f ɑː k s", "ʃ ɑː t", "b ɪ ʃ ɑː p")
    }
    assert [found[0] for found in spelt.values()] == ["fox", "shot", "bishop"]
    assert all(len(set(found)) == len(found) for found in spelt.values())
    assert model.spell(PHONES.encode(("ŋ",))) == []


def test_a_lexicon_without_letters_teaches_nothing():
    with pytest.raises(ValueError, match="no word of the letters a to z"):
        Spelling.train([("123", [1]), ("o'neil", [2])])


def test_the_second_time_it_comes_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "words.txt"
    file.write_text("".join(f"{word}\t{said}\n" for word, said in WORDS.items()), encoding="utf-8")
    first = Spelling.load(PHONES, file)
    monkeypatch.setattr(Spelling, "train", lambda *_: pytest.fail("trained again"))
    again = Spelling.load(PHONES, file)
    tokens = PHONES.encode(PHONES.parse("f ɑː k s"))
    assert again.spell(tokens, 5) == first.spell(tokens, 5)


@pytest.mark.slow
def test_held_out_words_of_the_lexicon():
    """A sample of the lexicon, a word in twenty left out."""
    words = [(e.word, PHONES.encode(e.phones)) for e in read_entries(paths.base_lexicon(), PHONES)[0]][::8]
    held = [hashlib.md5(word.encode()).digest()[0] < 13 for word, _ in words]
    model = Spelling.train([word for word, out in zip(words, held, strict=True) if not out])
    asked = [word for word, out in zip(words, held, strict=True) if out and word[0].isalpha()][:120]
    spelt = [(word, (model.spell(tokens) or [""])[0]) for word, tokens in asked]
    errors = sum(count_errors(align(word, found)).errors for word, found in spelt)
    assert sum(word == found for word, found in spelt) > 0.5 * len(spelt)
    assert errors < 0.12 * sum(len(word) for word, _ in spelt)

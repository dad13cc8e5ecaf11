"""Phones without a lexicon, with and without pyctcdecode."""

import sys
from pathlib import Path

import numpy as np
import pytest

from asr.open_phones import PhoneDecoder, PhoneOptions, parse_hot
from asr.phones import PhoneSet, UnknownPhone

PHONES = PhoneSet(("<blk>", "p", "t", "k", "s", "ɜː"))


def emissions() -> np.ndarray:
    """p, then t a little above k, then s, with blanks between."""
    log_probs = np.full((6, len(PHONES)), 0.01)
    for frame, (symbol, share) in enumerate(
        [("p", 0.9), ("<blk>", 0.9), ("t", 0.5), ("<blk>", 0.9), ("s", 0.9), ("<blk>", 0.9)]
    ):
        log_probs[frame, PHONES.ids[symbol]] = share
    log_probs[2, PHONES.ids["k"]] = 0.4
    return np.log(log_probs / log_probs.sum(1, keepdims=True)).astype(np.float32)


def test_hot_strings_are_parsed() -> None:
    assert parse_hot(" s ɜː , k,") == ("s ɜː", "k")
    assert parse_hot(None) == ()


def test_without_pyctcdecode_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyctcdecode", None)
    with pytest.raises(ValueError, match=r"pip install 'phonebook-asr\[pyctcdecode\]'"):
        PhoneDecoder(PHONES, PhoneOptions(hot=("k s",)))


def test_bad_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such language model"):
        PhoneDecoder(PHONES, PhoneOptions(lm=tmp_path / "none.arpa"))
    with pytest.raises(UnknownPhone):
        PhoneDecoder(PHONES, PhoneOptions(hot=("ʘ",)))


def test_language_model_and_hot_phones_decide(tmp_path: Path) -> None:
    pytest.importorskip("pyctcdecode", reason="pyctcdecode is an extra of its own (numpy<2)")
    assert PhoneDecoder(PHONES, PhoneOptions()).decode(emissions()) == ("p", "t", "s")
    assert PhoneDecoder(PHONES, PhoneOptions(hot=("k s",))).decode(emissions()) == ("p", "k", "s")
    unigrams = "".join(f"-1\t{phone}\t-1\n" for phone in PHONES.phones)
    (tmp_path / "phones.arpa").write_text(
        f"\\data\\\nngram 1=8\nngram 2=2\n\n\\1-grams:\n-1\t<unk>\n-99\t<s>\t0\n-1\t</s>\n{unigrams}\n"
        "\\2-grams:\n-0.01\tp k\n-0.01\tk s\n\n\\end\\\n",
        encoding="utf-8",
    )
    with_lm = PhoneDecoder(PHONES, PhoneOptions(lm=tmp_path / "phones.arpa", lm_weight=1.0))
    assert with_lm.decode(emissions()) == ("p", "k", "s")
    (tmp_path / "none.arpa").write_text("nothing")
    with pytest.raises(ValueError, match="KenLM"):
        PhoneDecoder(PHONES, PhoneOptions(lm=tmp_path / "none.arpa"))

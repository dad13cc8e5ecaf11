"""Phone error rates while training are those that one counts by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from asr import paths
from asr.model.encoder import EncoderConfig, PhoneModel
from asr.model.features import NUM_MELS
from asr.phones import PhoneSet
from asr.training.prepared import Prepared, PreparedUtterance
from asr.training.progress import Judge, Spoken


class Dictated(PhoneModel):
    """Hears what it is told to, an utterance after the other."""

    def __init__(self, heard: list[list[int]]) -> None:
        super().__init__(EncoderConfig(dim=8, bottleneck=4, dilations=(1,), statistics_after=()), 5)
        self.heard = iter(heard)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        tokens = torch.tensor(next(self.heard))
        return torch.nn.functional.one_hot(tokens, 5)[None].float().log_softmax(2), lengths


def prepared(sets: list[str], texts: list[str]) -> Prepared:
    utterances = tuple(
        PreparedUtterance(id=f"u{i}", set=name, speaker="", text=text, spans={"1.00": (6 * i, 6 * i + 6)})
        for i, (name, text) in enumerate(zip(sets, texts, strict=True))
    )
    noise = np.random.default_rng(0).normal(0, 1, (6 * len(sets), NUM_MELS))
    return Prepared(utterances, {"1.00": noise.astype(np.float16)})


def spoken(*phones: int) -> Spoken:
    """One word, said in one way."""
    return ((phones,),)


def test_rates_by_hand() -> None:
    references = (spoken(1, 2, 3), spoken(4), spoken(1, 1))
    heard = [
        [0, 1, 1, 2, 0, 3],  # right: repetitions and blanks fall away
        [1, 0, 4, 4, 0, 2],  # 1 and 2 too much
        [1, 1, 1, 1, 1, 1],  # one phone, for without a blank between them two are one: one missing
    ]
    judge = Judge(prepared(["a", "b", "a"], ["", "", ""]), references)
    network = Dictated(heard).train()
    rates = judge.phone_error_rates(network)
    assert rates == {"a": pytest.approx(1 / 5), "b": pytest.approx(2 / 1)}
    assert network.training  # training goes on with dropout


def test_a_network_with_an_ngram_is_judged_with_it() -> None:
    judge = Judge(prepared(["a"], [""]), (spoken(1),))
    network = Dictated([[1, 1, 0, 3, 3, 0]] * 2)
    assert judge.phone_error_rates(network) == {"a": pytest.approx(1 / 1)}
    network.phone_lm = torch.full((5, 5, 5), -6.0)
    network.phone_lm[0, 0, 1] = network.phone_lm[0, 1, 0] = 0.0  # phone 1 alone is all that is ever said
    assert judge.phone_error_rates(network) == {"a": 0.0}


def test_the_nearest_way_to_say_the_words_counts() -> None:
    judge = Judge(prepared(["a"], [""]), ((((1, 2), (3,)), ((4,), (2, 2))),))
    network = Dictated([[3, 4, 4, 4], [1, 2, 4, 4], [3, 0, 2, 2]])
    assert judge.phone_error_rates(network) == {"a": 0.0}
    assert judge.phone_error_rates(network) == {"a": 0.0}
    assert judge.phone_error_rates(network) == {"a": pytest.approx(1 / 2)}  # 3 4 is what was said, or 3 2 2


def judged(folder: Path, text: str, phones: PhoneSet) -> list[list[str]]:
    """For each word of a development sentence the ways to say it."""
    (folder / "utterances.tsv").write_text(
        f"id\tset\tspeaker\ttext\t1.00\nu\ts\t\t{text}\t0:6\n", encoding="utf-8"
    )
    np.zeros((6, NUM_MELS), np.float16).tofile(folder / "features-1.00.raw")
    (reference,) = Judge.open(folder, phones).references
    return [[" ".join(phones.symbols[i] for i in way) for way in word] for word in reference]


def test_references_are_the_first_pronunciations(
    tmp_path: Path, phones: PhoneSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "user_lexicon", lambda: tmp_path / "none.txt")
    the, coffee, guessed = judged(tmp_path, "THE COFFEE, Zolvaniqel!", phones)
    assert (the, coffee) == (["ð ə"], ["k ɔ f i"])
    assert len(guessed) == 1 and guessed[0].startswith("z")  # a word that is in no lexicon


def test_words_of_the_users_lexicon_are_judged_in_all_their_pronunciations(
    tmp_path: Path, phones: PhoneSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, user = tmp_path / "en.txt", tmp_path / "user.txt"
    base.write_text("the\tð ə\nthe\tð i\ncoffee\tk ɔ f i\ncoffee\tk ɑː f i\n", encoding="utf-8")
    user.write_text("Coffee\tk oʊ f i\nkestrovan\tk ɛ s t\nZolvaniqel\n", encoding="utf-8")
    monkeypatch.setattr(paths, "base_lexicon", lambda: base)
    monkeypatch.setattr(paths, "user_lexicon", lambda: user)
    the, coffee, added, guessed = judged(tmp_path, "THE COFFEE KESTROVAN ZOLVANIQEL", phones)
    assert the == ["ð ə"] and coffee == ["k ɔ f i", "k ɑː f i", "k oʊ f i"]
    assert added == ["k ɛ s t"] and guessed[0].startswith("z")

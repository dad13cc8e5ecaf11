"""Phone error rates while training are those that one counts by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from reference.edit_distance import edit_distance as slow_edit_distance
from torch import Tensor

from asr.model.encoder import EncoderConfig, PhoneModel
from asr.model.features import NUM_MELS
from asr.phones import PhoneSet
from asr.training.prepared import Prepared, PreparedUtterance
from asr.training.progress import Judge, edit_distance


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


def test_rates_by_hand() -> None:
    references = ([1, 2, 3], [4], [1, 1])
    heard = [
        [0, 1, 1, 2, 0, 3],  # right: repetitions and blanks fall away
        [1, 0, 4, 4, 0, 2],  # 1 and 2 too much
        [1, 1, 1, 1, 1, 1],  # one phone, for without a blank between them two are one: one missing
    ]
    judge = Judge(prepared(["a", "b", "a"], ["", "", ""]), tuple(np.array(r, np.int32) for r in references))
    network = Dictated(heard).train()
    rates = judge.phone_error_rates(network)
    assert rates == {"a": pytest.approx(1 / 5), "b": pytest.approx(2 / 1)}
    assert network.training  # training goes on with dropout


def test_a_network_with_an_ngram_is_judged_with_it() -> None:
    judge = Judge(prepared(["a"], [""]), (np.array([1], np.int32),))
    network = Dictated([[1, 1, 0, 3, 3, 0]] * 2)
    assert judge.phone_error_rates(network) == {"a": pytest.approx(1 / 1)}
    network.phone_lm = torch.full((5, 5, 5), -6.0)
    network.phone_lm[0, 0, 1] = network.phone_lm[0, 1, 0] = 0.0  # phone 1 alone is all that is ever said
    assert judge.phone_error_rates(network) == {"a": 0.0}


def test_references_are_the_first_pronunciations(tmp_path: Path, phones: PhoneSet) -> None:
    (tmp_path / "utterances.tsv").write_text(
        "id\tset\tspeaker\ttext\t1.00\nu\ts\t\tTHE COFFEE, Zolvaniqel!\t0:6\n", encoding="utf-8"
    )
    np.zeros((6, NUM_MELS), np.float16).tofile(tmp_path / "features-1.00.raw")
    (reference,) = Judge.open(tmp_path, phones).references
    said = tuple(phones.symbols[i] for i in reference)
    assert said[:6] == ("ð", "ə", "k", "ɔ", "f", "i")
    assert len(said) > 12 and "z" in said[6:]  # a word that is in no lexicon is guessed


def test_distance_equals_the_definition() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        a, b = (rng.integers(0, 3, rng.integers(0, 6)).astype(np.int32) for _ in range(2))
        assert edit_distance(a, b) == slow_edit_distance(a.tolist(), b.tolist())

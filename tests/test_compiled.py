"""What the cache of compiled lexicons keeps."""

import os
from pathlib import Path

import numpy as np
import pytest
from test_decoder import PHONES, spoken

from asr.decoder import Decoder, DecoderOptions, compiled


def load(lexicon: Path, word_score: float) -> Decoder:
    return Decoder.load(lexicon, None, PHONES, DecoderOptions(word_score=word_score))


def test_the_graph_longest_unused_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "_KEPT", 2)
    lexicon = tmp_path / "words.txt"
    lexicon.write_text("pot\tp t\n", encoding="utf-8")
    cache = tmp_path / "phonebook"

    def graphs() -> set[Path]:
        return set(cache.glob("graph-*"))

    oldest = load(lexicon, 0.0)
    (first,) = graphs()
    load(lexicon, 1.0)
    (second,) = graphs() - {first}
    for age, folder in enumerate((second, first)):  # both long ago, the first one before the second
        os.utime(folder, (1_000_000 - age, 1_000_000 - age))
    load(lexicon, 0.0)  # used again
    load(lexicon, 2.0)
    assert first in graphs() and second not in graphs() and len(graphs()) == 2
    load(lexicon, 3.0)
    load(lexicon, 4.0)
    assert first not in graphs()
    # Who has it mapped still decodes, and it is built again where it is missing.
    said = spoken("p", "t")[None]
    again = load(lexicon, 0.0).decode(said)[0][0]
    assert oldest.decode(said)[0][0].words == again.words == ("pot",)
    assert np.isclose(oldest.decode(said)[0][0].score, again.score)

from __future__ import annotations

from pathlib import Path

import pytest

from asr.evaluate import evaluate
from asr.manifest import Utterance, read_manifest
from asr.metrics import Errors, align, count_errors
from asr.text import normalize
from asr.transcribe import Recognizer


def test_rates_are_those_of_the_transcripts(recognizer: Recognizer, examples: Path, tmp_path: Path):
    utterances = read_manifest(examples / "examples.tsv")[:4]
    (tmp_path / "empty.wav").touch()
    more = [
        Utterance(path=tmp_path / "empty.wav", text="hello"),
        Utterance(path=utterances[0].path, text="?"),
    ]
    result = evaluate(recognizer, [*utterances, *more], {"river", "kestrovan", "garden"})

    texts = [t.text for t in recognizer.transcribe([u.path for u in utterances])]
    assert [s.heard for s in result.scored] == texts  # the one without text is left out
    pairs = [align(normalize(u.text).split(), t.split()) for u, t in zip(utterances, texts, strict=True)]
    assert result.words == sum((count_errors(p) for p in pairs), Errors())
    assert [f.path for f in result.failures] == [str(tmp_path / "empty.wav")]
    assert 0 < result.phones.rate < 0.35 and result.phones.total > 100
    low, high = result.interval
    assert low <= result.words.rate <= high
    assert result.seconds == pytest.approx(sum(u.duration for u in utterances), abs=0.1)
    assert result.rtfx == pytest.approx(result.seconds / result.wall_s)
    assert result.recall is not None and result.recall.said == 3
    assert result.recall.by_word["kestrovan"] == (1, 0, 0)

    confused = result.confusions(100)
    assert sum(count for _, count in confused) == result.words.errors
    assert [c for _, c in confused] == sorted((c for _, c in confused), reverse=True)
    told = result.as_dict()
    assert told["wer"] == result.words.rate and told["utterances"] == 4 and told["false_alarms"] == 0


def test_nothing_to_compare_with_is_an_error(recognizer: Recognizer, examples: Path):
    with pytest.raises(ValueError, match="no recording in the manifest has a text"):
        evaluate(recognizer, [Utterance(path=examples / "read-1.opus", text=" - ")])

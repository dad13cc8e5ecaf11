from __future__ import annotations

import json

from asr import formats
from asr.types import Transcript, Word

TRANSCRIPT = Transcript(
    path="a b.wav",
    text="héllo you",
    duration_s=1.25,
    words=(
        Word(text="héllo", start_s=0.1, end_s=0.4, phones=("h", "ə", "l", "oʊ"), score=-0.25),
        Word(text="you", start_s=0.5, end_s=0.7),
    ),
    score=-3.5,
    alternatives=(("héllo you", -3.5), ("héllo", -7.125)),
)


def test_text_has_a_line_for_each_alternative():
    plain = Transcript(path="a.wav", text="héllo you", duration_s=1.0)
    assert formats.txt(plain) == "héllo you"
    assert formats.txt(plain, named=True) == "a.wav\théllo you"
    assert formats.txt(TRANSCRIPT, named=True).splitlines() == [
        "a b.wav\t-3.50\théllo you",
        "a b.wav\t-7.12\théllo",
    ]


def test_json_holds_all_of_a_transcript():
    text = formats.as_json([TRANSCRIPT, Transcript(path="b", text="", duration_s=0.5)])
    first, second = json.loads(text)
    assert "héllo" in text  # letters as they are
    assert first["text"] == "héllo you" and first["duration_s"] == 1.25 and first["score"] == -3.5
    assert first["words"][0] == {
        "text": "héllo",
        "start_s": 0.1,
        "end_s": 0.4,
        "phones": ["h", "ə", "l", "oʊ"],
        "score": -0.25,
    }
    assert first["alternatives"][1] == {"text": "héllo", "score": -7.125}
    assert second["words"] == second["alternatives"] == []
    assert json.loads(formats.as_json([])) == []

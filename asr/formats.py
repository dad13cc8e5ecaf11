"""Transcripts as text."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from asr.types import Transcript

EXTENSIONS = {"txt": ".txt", "json": ".json"}


def txt(transcript: Transcript, named: bool = False) -> str:
    """The text; where alternatives were asked for, a line for each: score TAB text.

    `named`: each line begins with the path and a TAB, so that several recordings fit in one stream.
    """
    name = f"{transcript.path}\t" if named else ""
    if transcript.alternatives:
        return "\n".join(f"{name}{score:.2f}\t{text}" for text, score in transcript.alternatives)
    return name + transcript.text


def as_json(transcripts: Iterable[Transcript]) -> str:
    """A list of transcripts, each with its words, their times in seconds and their phones."""
    return json.dumps([_as_dict(t) for t in transcripts], ensure_ascii=False, indent=1)


def _as_dict(transcript: Transcript) -> dict[str, Any]:
    found = dataclasses.asdict(transcript)
    found["alternatives"] = [{"text": text, "score": score} for text, score in transcript.alternatives]
    return found

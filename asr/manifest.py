"""Manifests: which recordings there are and what is said in them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """A recording; `text` and `speaker` are empty and `duration` (seconds) is 0 where they are not known."""

    path: Path
    text: str = ""
    speaker: str = ""
    duration: float = 0.0


def read_manifest(path: str | Path) -> list[Utterance]:
    """Read a TSV with a header (path, and any of duration, speaker, text), or jsonl with the same keys.

    In jsonl `audio` and `audio_filepath` name the recording too. Paths are relative to the
    manifest. Raises ValueError naming file and line.
    """
    path = Path(path)
    if path.is_dir() or not path.exists():
        raise ValueError(f"{path}: {'is a folder, not a manifest' if path.is_dir() else 'no such manifest'}")
    try:
        # Only real line ends: a sentence may hold other separators.
        lines = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a manifest: it is not UTF-8 text") from None
    rows = _jsonl(path, lines) if path.suffix in (".jsonl", ".json") else _tsv(path, lines)
    utterances = [_utterance(path, number, row) for number, row in rows]
    if not utterances:
        raise ValueError(f"{path}: the manifest has no recordings")
    return utterances


def _utterance(path: Path, number: int, row: Mapping[str, Any]) -> Utterance:
    recording = row.get("path") or row.get("audio") or row.get("audio_filepath")
    if not recording or not isinstance(recording, str):
        raise ValueError(f"{path}:{number}: no path of a recording")
    try:
        duration = float(row.get("duration") or 0)
    except (TypeError, ValueError):
        duration = math.nan
    if not 0 <= duration < math.inf:
        raise ValueError(f"{path}:{number}: duration must be seconds, not {row['duration']!r}")
    text = row.get("text") or ""
    if not isinstance(text, str):
        raise ValueError(f"{path}:{number}: text must be a string, not {text!r}")
    speaker = str(row.get("speaker") or "")
    return Utterance(path=path.parent / recording, text=text, speaker=speaker, duration=duration)


def _tsv(path: Path, lines: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    header, *rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    if "path" not in header:
        raise ValueError(f"{path}:1: a TSV manifest begins with a header that names the column 'path'")
    for number, row in enumerate(rows, 2):
        if any(row):
            if len(row) > len(header):
                raise ValueError(f"{path}:{number}: {len(row)} columns where the header has {len(header)}")
            yield number, dict(zip(header, row, strict=False))


def _jsonl(path: Path, lines: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not JSON ({error.msg})") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number}: not a JSON object")
        yield number, row

"""The flat files that recipes/prepare.py and recipes/align.py write, mapped into memory."""

from __future__ import annotations

import csv
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from asr.model.features import NUM_MELS

SAMPLES, WAVEFORMS = "samples", "waveforms.raw"
UNLABELLED = 255  # class of a frame of which nothing is known


@dataclass(frozen=True, kw_only=True)
class PreparedUtterance:
    """An utterance and its frame spans, by the name of the version: '1.00', '0.90', 'noisy', ...; with
    waveforms also where its samples are in them."""

    id: str
    set: str
    speaker: str
    text: str
    spans: dict[str, tuple[int, int]]
    samples: tuple[int, int] | None = None


@dataclass(frozen=True)
class Prepared:
    """Utterances and their features (frames, mels) float16 by version; `waveforms` (samples,) int16 of
    all utterances, where they were kept."""

    utterances: tuple[PreparedUtterance, ...]
    features: dict[str, np.ndarray]
    waveforms: np.ndarray | None = None

    @classmethod
    def open(cls, folder: Path) -> Prepared:
        """Raises ValueError when `folder` was not made by recipes/prepare.py."""
        table = folder / "utterances.tsv"
        if not table.exists():
            raise ValueError(f"{folder}: no utterances.tsv: run recipes/prepare.py --out {folder} first")
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        columns = rows[0] if rows else {}
        names = [name for name in columns if name not in ("id", "set", "speaker", "text", SAMPLES)]
        utterances = tuple(
            PreparedUtterance(
                id=row["id"], set=row["set"], speaker=row["speaker"], text=row["text"],
                spans={name: _span(row[name]) for name in names},
                samples=_span(row[SAMPLES]) if SAMPLES in columns else None,
            )
            for row in rows
        )  # fmt: skip
        features = {
            name: np.memmap(folder / f"features-{name}.raw", np.float16, "r").reshape(-1, NUM_MELS)
            for name in names
        }
        waveforms = np.memmap(folder / WAVEFORMS, np.int16, "r") if SAMPLES in columns else None
        return cls(utterances, features, waveforms)

    def digest(self) -> str:
        """Of the ids and texts: another one means that alignments made before are not of these texts."""
        rows = "\n".join(f"{utterance.id}\t{utterance.text}" for utterance in self.utterances)
        return hashlib.sha256(rows.encode()).hexdigest()

    def frames(self, index: int, version: str = "1.00") -> np.ndarray:
        first, last = self.utterances[index].spans[version]
        return self.features[version][first:last]


def _span(text: str) -> tuple[int, int]:
    first, last = text.split(":")
    return int(first), int(last)


@dataclass(frozen=True)
class Alignments:
    """For each utterance of a Prepared folder, in its order: the chosen phones and the class of each frame.

    `phones`: int16, all utterances one after the other; those of utterance i are
    phones[offsets[i]:offsets[i+1]] (none where it could not be aligned). `classes`: uint8 (frames of version
    1.00), 3 * phone id + state, silence 0-2, or UNLABELLED. `digest`: `Prepared.digest` of what was aligned,
    `word_starts`: bool, whether each of the phones is the first of a word; both are empty where they are not
    known (files of earlier versions have none).
    """

    phones: np.ndarray
    offsets: np.ndarray
    classes: np.ndarray
    digest: str = ""
    word_starts: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    @classmethod
    def open(cls, path: Path) -> Alignments:
        """Raises ValueError when there is no such file."""
        if not path.exists():
            raise ValueError(f"{path}: no alignments: run recipes/align.py --prepared {path.parent} first")
        with np.load(path) as file:
            digest = str(file["digest"]) if "digest" in file else ""
            word_starts = file["word_starts"] if "word_starts" in file else np.zeros(0, bool)
            return cls(file["phones"], file["offsets"], file["classes"], digest, word_starts)

    def check_of(self, prepared: Prepared) -> None:
        """Raises ValueError for alignments of other features or texts."""
        frames = sum(last - first for first, last in (u.spans["1.00"] for u in prepared.utterances))
        if len(self.offsets) != len(prepared.utterances) + 1 or len(self.classes) != frames:
            raise ValueError("the alignments were made from other features: run recipes/align.py again")
        if self.digest not in ("", prepared.digest()):
            raise ValueError("the alignments were made from other texts: run recipes/align.py again")

    def save(self, path: Path) -> None:
        """Written beside and moved into place: there is never half a file."""
        beside = path.with_name(path.name + ".partial")
        with beside.open("wb") as file:
            np.savez(
                file, phones=self.phones, offsets=self.offsets, classes=self.classes, digest=self.digest,
                word_starts=self.word_starts,
            )  # fmt: skip
        os.replace(beside, path)

    def targets(self, index: int) -> np.ndarray:
        return self.phones[self.offsets[index] : self.offsets[index + 1]]

    def starts_of_words(self, index: int) -> np.ndarray:
        """(phones,) bool of its targets, or none where it is not known."""
        return self.word_starts[self.offsets[index] : self.offsets[index + 1]]

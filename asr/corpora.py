"""Corpora as they are distributed, and folders of one's own: which recordings there are and what is said."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from asr.audio import SUFFIXES
from asr.manifest import Utterance

LIBRISPEECH_SPLITS = (
    "train-clean-100", "train-clean-360", "train-other-500", "dev-clean", "dev-other", "test-clean",
    "test-other",
)  # fmt: skip
# The few-label setups of wav2vec 2.0 (Baevski et al. 2020, section 4.1), as Libri-light (Kahn et al. 2020,
# section 3.3) has them: six parts of ten minutes, and nine hours beside.
LIBRILIGHT_SPLITS = {"10min": ("1h/0",), "1h": ("1h",), "10h": ("1h", "9h")}
# That of 100 hours is a split of LibriSpeech.
_ALIASES = {"100h": "train-clean-100"}
_LIBRISPEECH, _LIBRILIGHT = "LibriSpeech", "librispeech_finetuning"  # as their archives unpack


def read_librispeech(folder: Path, splits: Sequence[str], download: bool = False) -> Iterator[Utterance]:
    """Splits of LibriSpeech, or "100h", "10h", "1h" and "10min", the few labels of wav2vec 2.0.

    `folder` holds `LibriSpeech/` (`librispeech_finetuning/` for the last three), or is it. What is not there
    is fetched if `download`. Raises ValueError for unknown splits and those that are not there.
    """
    for split in splits:
        split = _ALIASES.get(split, split)
        if split in LIBRISPEECH_SPLITS:
            parts = [_part(folder, _LIBRISPEECH, split)]
        elif split in LIBRILIGHT_SPLITS:
            parts = [_part(folder, _LIBRILIGHT, part) for part in LIBRILIGHT_SPLITS[split]]
        else:
            known = ", ".join([*LIBRISPEECH_SPLITS, *_ALIASES, *LIBRILIGHT_SPLITS])
            raise ValueError(f"LibriSpeech has no split {split!r}; there are {known}")
        if download and not all(part.is_dir() for part in parts):
            _download_librispeech(folder, split)
        for part in parts:
            if not part.is_dir():
                raise ValueError(f"{part}: no such folder: unpack the corpus there, or --download it")
            yield from _read_chapters(part)


def _part(folder: Path, corpus: str, part: str) -> Path:
    return (folder if folder.name == corpus else folder / corpus) / part


def _download_librispeech(folder: Path, split: str) -> None:
    from torchaudio.datasets import LIBRISPEECH, LibriLightLimited

    root = folder.parent if folder.name in (_LIBRISPEECH, _LIBRILIGHT) else folder
    root.mkdir(parents=True, exist_ok=True)
    if split in LIBRILIGHT_SPLITS:
        LibriLightLimited(root, subset=split, download=True)
    else:
        LIBRISPEECH(root, url=split, folder_in_archive=_LIBRISPEECH, download=True)


def _read_chapters(folder: Path) -> Iterator[Utterance]:
    """SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt, and a flac file for each of its lines."""
    for chapter in sorted(folder.rglob("*.trans.txt")):
        for name, text in _read_transcripts(chapter).items():
            yield Utterance(path=chapter.parent / f"{name}.flac", text=text, speaker=name.split("-")[0])


def _read_transcripts(path: Path) -> dict[str, str]:
    """Lines of a recording's name without suffix, a space or TAB, and its text."""
    texts = {}
    for line in _read_text(path).splitlines():
        name, _, text = line.strip().replace("\t", " ").partition(" ")
        if name:
            texts[name] = text.strip()
    return texts


def read_common_voice(folder: Path, splits: Sequence[str]) -> Iterator[Utterance]:
    """Splits of a Common Voice release of one language: `train`, `dev`, `test`, `validated`, `other`.

    `folder` holds `clips/` and a table a split. The speakers of `dev` and `test` are left out of `validated`
    and `other`, which hold every speaker, so that they stay unheard. Raises ValueError for what is not there.
    """
    heldout = {
        row["client_id"]
        for split in ("dev", "test")
        if (folder / f"{split}.tsv").exists()
        for row in _read_table(folder / f"{split}.tsv")
    }
    for split in splits:
        for row in _read_table(folder / f"{split}.tsv"):
            if split in ("validated", "other") and row["client_id"] in heldout:
                continue
            clip = folder / "clips" / row["path"]
            if not clip.suffix:  # so in the first releases
                clip = clip.with_suffix(".mp3")
            yield Utterance(path=clip, text=row["sentence"], speaker=row["client_id"])


def _read_table(path: Path) -> Iterator[dict[str, str]]:
    if not path.exists():
        raise ValueError(f"{path}: no such table: is this the folder of a Common Voice language?")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        missing = {"client_id", "path", "sentence"} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path}:1: no column {', '.join(sorted(missing))}")
        yield from (row for row in reader if row["path"])


def read_folder(folder: Path) -> Iterator[Utterance]:
    """Recordings anywhere below a folder that have their text beside them.

    `visit.wav` with `visit.txt` or `visit.lab`, or with a line "visit TEXT" of any `*.trans.txt` of the same
    folder. A folder between is the speaker's. Recordings without text are left out. Raises ValueError if
    there is none with text, and for a text that is not UTF-8.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    transcripts: dict[Path, dict[str, str]] = {}
    found = 0
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
        if path.parent not in transcripts:
            tables = sorted(path.parent.glob("*.trans.txt"))
            transcripts[path.parent] = {k: v for t in tables for k, v in _read_transcripts(t).items()}
        text = _text_beside(path) or transcripts[path.parent].get(path.stem)
        if text:
            speaker = path.relative_to(folder).parts[0] if path.parent != folder else ""
            yield Utterance(path=path, text=text, speaker=speaker)
            found += 1
    if not found:
        raise ValueError(f"{folder}: no recording with its text beside it (NAME.wav and NAME.txt)")


def _text_beside(path: Path) -> str:
    for suffix in (".txt", ".lab"):
        beside = path.with_suffix(suffix)
        if beside.exists():
            return " ".join(_read_text(beside).split())
    return ""


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None

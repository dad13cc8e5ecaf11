"""Any audio file to mono float32 at 16 kHz, and long recordings cut at pauses."""

from __future__ import annotations

import glob
import io
import logging
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from soundfile import SoundFile

SAMPLE_RATE = 16_000
SUFFIXES = frozenset(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".mp4", ".aac", ".aif", ".aiff", ".au", ".caf",
     ".w64", ".webm", ".wma")
)  # fmt: skip
STDIN = "-"

_BLOCK = 1 << 16  # samples read at a time
_HEADER_ERROR = 64  # bytes by which programs miscount a wav file
_UNKNOWN_SIZE = 0x7FFF0000  # bytes; programs that write a wav file into a pipe promise so many or more
_FRAME = 160  # 10 ms
_SILENCE_DB = -70.0  # re full scale; quieter is silence in any recording
_ABOVE_FLOOR_DB = 10.0  # speech stands out from the background by as much
_BELOW_LOUD_DB = 12.0  # but so much less than the loudest counts as speech in any background
_DROPPED_PAUSE = 200  # frames, 2 s: a silence as long is left out of long recordings
_MARGIN = 30  # frames of it that are kept on either side
_SMOOTHED = 25  # frames, 0.25 s: longer than the closure of any stop, so that no word is cut at one

_log = logging.getLogger("asr")


class AudioError(ValueError):
    """A recording that cannot be read; the message names the file and the reason."""


def load(source: str | Path) -> np.ndarray:
    """Read a file, or stdin where `source` is '-': mono float32 at 16 kHz, shape (samples,), full scale 1.

    Channels are averaged. Of a file that breaks off, what comes before the break is returned and a warning
    logged. Raises AudioError for everything that gives no sound.
    """
    name, stream = _open(source)
    mono, rate = _decode(name, stream)
    if not len(mono):
        raise AudioError(f"{name}: no audio in it (0 samples)")
    if not np.isfinite(mono).all():
        raise AudioError(f"{name}: holds samples that are no numbers (NaN or infinite)")
    if rate != SAMPLE_RATE:
        import soxr  # what librosa.resample calls, without the compilation that its first call waits for

        mono = soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ")
    return np.ascontiguousarray(mono, np.float32)


def duration(source: str | Path) -> float:
    """Seconds as the file's header tells them, for progress bars; 0 where that is not known."""
    import soundfile

    if str(source) == STDIN:
        return 0.0
    try:
        return float(soundfile.info(str(source)).duration)
    except (soundfile.LibsndfileError, RuntimeError, TypeError):
        return 0.0


def _open(source: str | Path) -> tuple[str, str | io.BytesIO]:
    """A name for messages, and what soundfile takes. Raises AudioError where a decoder would be unclear."""
    if str(source) == STDIN:
        content = sys.stdin.buffer.read()
        if not content:
            raise AudioError("stdin: no audio arrived")
        return "stdin", io.BytesIO(content)
    path = Path(source)
    if not path.exists():
        raise AudioError(f"{path}: no such file")
    if path.is_dir():
        raise AudioError(f"{path}: is a folder, not a recording")
    if not os.access(path, os.R_OK):
        raise AudioError(f"{path}: may not be read (permissions)")
    if path.is_file() and path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty")
    return str(path), str(path)


def _decode(name: str, stream: str | io.BytesIO) -> tuple[np.ndarray, int]:
    """Mono samples and their rate: by libsndfile, or by the decoders that the system has (m4a, aac, webm)."""
    import soundfile

    try:
        with soundfile.SoundFile(stream) as file:
            return _read_blocks(name, file, _is_cut_wav(stream)), file.samplerate
    except (soundfile.LibsndfileError, RuntimeError, TypeError):
        pass
    if isinstance(stream, str):
        import warnings

        import librosa

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                samples, rate = librosa.load(stream, sr=None, mono=True)
            return samples, int(rate)
        except Exception:  # audioread's back ends raise whatever they like
            pass
    raise AudioError(
        f"{name}: not an audio file that can be read here "
        "(wav, flac, ogg, opus and mp3 can; others where ffmpeg is installed)"
    )


def _is_cut_wav(stream: str | io.BytesIO) -> bool:
    """Whether a wav file is shorter than its header says, which libsndfile does not mind."""
    with open(stream, "rb") if isinstance(stream, str) else io.BytesIO(stream.getvalue()) as file:
        head = file.read(8)
        size = file.seek(0, io.SEEK_END)
    promised = int.from_bytes(head[4:], "little")
    return head[:4] == b"RIFF" and size + _HEADER_ERROR < promised < _UNKNOWN_SIZE


def _read_blocks(name: str, file: SoundFile, broken: bool) -> np.ndarray:
    """Mono samples; of a broken file, those before the break. Raises LibsndfileError when there are none."""
    import soundfile

    blocks: list[np.ndarray] = []
    try:
        while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
            blocks.append(block.mean(1, dtype=np.float32))
    except soundfile.LibsndfileError:
        if not blocks:
            raise
        broken = True
    mono = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    # An mp3's header only estimates its length: a second less than promised is no damage.
    if broken or len(mono) < file.frames - file.samplerate:
        _log.warning(
            "%s: the file is damaged; only its first %.1f s are read", name, len(mono) / file.samplerate
        )
    return mono


def find(paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """Recordings named by files, folders (searched through), globs and '-', in order, each once; and an error
    line for each path that names none."""
    found: dict[str, None] = {}
    errors: list[str] = []
    for path in paths:
        literal = path == STDIN or Path(path).exists()
        matches = [path] if literal else sorted(glob.glob(path, recursive=True))
        inside = [file for match in matches for file in _recordings(match)]
        found |= dict.fromkeys(inside)
        if not matches:
            errors.append(f"{path}: no such file")
        elif not inside:
            errors.append(f"{path}: no audio files in this folder")
    return list(found), errors


def _recordings(path: str) -> list[str]:
    """A file itself whatever its name; the audio files in a folder and below, hidden ones left out."""
    if path == STDIN or not Path(path).is_dir():
        return [path]
    inside: list[str] = []
    for folder, subfolders, files in os.walk(path):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        named = (name for name in sorted(files) if not name.startswith("."))
        inside += [os.path.join(folder, name) for name in named if Path(name).suffix.lower() in SUFFIXES]
    return inside


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of a recording, in samples."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


def cut(waveform: np.ndarray, longest_s: float = 20.0, piece_s: float = 12.0) -> list[Segment]:
    """Stretches of a recording (mono, 16 kHz) with sound, each at most `longest_s`; none if all is silent.

    A recording of at most `longest_s` stays whole. From a longer one, silences of two seconds and more are
    left out, and what is longer than `piece_s` is cut at the quietest moment of the second half of each
    `piece_s`: in a pause where there is one. (A language model takes a piece for a sentence: shorter ones are
    more often one.)
    """
    level = _levels(waveform)
    sound = _is_sound(level)
    if not sound.any():
        return []
    if len(level) <= int(longest_s * SAMPLE_RATE / _FRAME):
        return [Segment(start=0, end=len(waveform))]
    longest = int(min(longest_s, piece_s) * SAMPLE_RATE / _FRAME)
    return [
        Segment(start=first * _FRAME, end=min(last * _FRAME, len(waveform)))
        for stretch in _stretches(sound)
        for first, last in _divide(level, *stretch, longest)
    ]


def _levels(waveform: np.ndarray) -> np.ndarray:
    """Level of each 10 ms in dB re full scale, smoothed over 50 ms; a constant offset does not count."""
    whole = len(waveform) // _FRAME * _FRAME
    power = waveform[:whole].reshape(-1, _FRAME).var(1)
    if whole < len(waveform):
        power = np.append(power, waveform[whole:].var())
    if len(power):
        power = np.convolve(np.pad(power, 2, mode="edge"), np.full(5, 0.2), mode="valid")
    return 10 * np.log10(power + 1e-12)


def _is_sound(level: np.ndarray) -> np.ndarray:
    """True for the frames that stand out from the background, or for all where nothing does."""
    if not len(level):
        return np.zeros(0, bool)
    floor, loud = float(np.percentile(level, 10)), float(level.max())
    threshold = min(max(floor + _ABOVE_FLOOR_DB, loud - 50), loud - _BELOW_LOUD_DB)
    return level > max(threshold, _SILENCE_DB)


def _stretches(sound: np.ndarray) -> list[tuple[int, int]]:
    """First frame and end of each stretch with sound, with a margin of silence."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], sound, [False]]).astype(np.int8)))
    stretches: list[tuple[int, int]] = []
    for first, last in edges.reshape(-1, 2).tolist():
        if stretches and first - stretches[-1][1] < _DROPPED_PAUSE:
            stretches[-1] = (stretches[-1][0], last)
        else:
            stretches.append((first, last))
    return [(max(0, first - _MARGIN), min(len(sound), last + _MARGIN)) for first, last in stretches]


def _divide(level: np.ndarray, first: int, end: int, longest: int) -> list[tuple[int, int]]:
    parts: list[tuple[int, int]] = []
    while end - first > longest:
        # Not so late that only a scrap, too short to be understood, would be left.
        window = level[first + longest // 2 : min(first + longest, end - longest // 4)]
        smooth = np.convolve(window, np.full(_SMOOTHED, 1 / _SMOOTHED), mode="valid")
        middle = first + longest // 2 + int(smooth.argmin()) + _SMOOTHED // 2
        parts.append((first, middle))
        first = middle
    return [*parts, (first, end)]

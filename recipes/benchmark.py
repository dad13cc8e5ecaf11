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
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from benchmark_engines import KALDI_LEAST_TOKENS, ON_GPU, Job
from benchmark_measure import Result, measure
from benchmark_tables import curve_table, names_table, plot

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

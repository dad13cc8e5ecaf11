"""Read manifests and audio once: log-mel features of every utterance at several speeds, in a few flat files.

    python recipes/prepare.py --data ~/phonebook-data --out work/prepared --jobs 2
    python recipes/prepare.py --folder my-recordings --out work/mine
    python recipes/prepare.py --librispeech ~/corpora --split 10h --download --out work/10h
    python recipes/prepare.py --common-voice ~/cv-corpus-24.0/en --split train --out work/cv

Takes manifests, LibriSpeech and the few-label sets that wav2vec 2.0 was fine-tuned on, a Common Voice
release, and any folder of recordings with their texts beside them (asr/corpora.py). Writes for each speed
`features-SPEED.raw` (float16, frames x mels, all utterances one after the other) and `utterances.tsv` (id,
set, speaker, text, first:last frame at each speed). The training recipes map these files into memory; an
hour of speech takes 58 MB at each speed. A file that cannot be read is skipped and counted. With --noise each
utterance is also written in rooms with noises (`features-noisy-SPEED.raw`). With --waveforms the waveforms
are kept instead (`waveforms.raw`, 115 MB an hour, the table says where each is in it, and the features at
their own speed, for the alignment): a GPU makes speeds, rooms and noises from them while it trains.

Into a folder that was prepared before, everything is written anew: its alignments go, for they are of the old
texts, and the table comes last, so that there is none over features that are not complete.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import track

from asr.corpora import read_common_voice, read_folder, read_librispeech
from asr.errors import one_line_errors
from asr.manifest import Utterance, read_manifest
from asr.training.prepared import SAMPLES, WAVEFORMS

TRAINING = (
    "commonvoice/train.tsv", "speechocean/train.tsv", "kathleen/train.tsv", "ljspeech/train.tsv",
    "librispeech_native/train.tsv", "librispeech_19/train.tsv",
)  # fmt: skip
DEVELOPMENT = (
    "librispeech_native/dev.tsv", "librispeech_dev/dev.tsv", "commonvoice/dev.tsv", "ljspeech/dev.tsv",
    "speechocean/dev.tsv", "kathleen/dev.tsv",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config:
    out: Path
    speeds: tuple[float, ...] = (1.0, 0.9, 1.1)
    noisy_speeds: tuple[float, ...] = (0.95, 1.05)
    noise: Path | None = None
    waveforms: bool = False
    jobs: int = 2


@dataclass(frozen=True, kw_only=True)
class Item:
    """An utterance to read. `seed` decides its noise."""

    path: Path
    set: str
    speaker: str
    text: str
    seed: int


def items_of(name: str, utterances: Iterable[Utterance]) -> list[Item]:
    """The utterances of a set."""
    return [
        Item(path=Path(u.path), set=name, speaker=u.speaker, text=u.text, seed=i)
        for i, u in enumerate(utterances)
    ]


def extract(item: Item, config: Config) -> list[np.ndarray] | None:
    """Features at each speed, float16 (frames, mels), then the noisy ones and the waveform, int16 (samples,),
    if asked; None if unreadable."""
    from asr.audio import AudioError, load

    try:
        waveform = load(item.path)
    except AudioError as error:
        print(f"skipped: {error}", file=sys.stderr)
        return None
    versions = [change_speed(waveform, speed) for speed in config.speeds]
    if config.noise is not None:
        from asr.training.augment import add_room_and_noise

        rng = np.random.default_rng([item.seed, len(waveform)])
        for speed in config.noisy_speeds:
            versions.append(add_room_and_noise(change_speed(waveform, speed), config.noise, rng))
    features = [log_mel(version) for version in versions]
    return [*features, to_int16(waveform)] if config.waveforms else features


def to_int16(waveform: np.ndarray) -> np.ndarray:
    return (np.clip(waveform, -1, 1) * 32_767).round().astype(np.int16)


def change_speed(waveform: np.ndarray, speed: float) -> np.ndarray:
    """Play faster or slower, pitch included (Ko et al. 2015, Audio augmentation for speech recognition)."""
    import soxr

    return waveform if speed == 1.0 else soxr.resample(waveform, round(16_000 * speed), 16_000, "MQ")


def log_mel(waveform: np.ndarray) -> np.ndarray:
    import torch

    from asr.model.features import LogMel

    global _LOG_MEL
    if _LOG_MEL is None:
        torch.set_num_threads(1)
        _LOG_MEL = LogMel()
    features, _ = _LOG_MEL(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]))
    return features[0].numpy().astype(np.float16)


_LOG_MEL = None


def main(config: Config, items: Sequence[Item]) -> None:
    """Raises ValueError where there is nothing to prepare or nothing can be read."""
    if not items:
        raise ValueError("no recordings: give --data, --manifest, --folder, --librispeech or --common-voice")
    config.out.mkdir(parents=True, exist_ok=True)
    table = config.out / "utterances.tsv"
    for old in (table, config.out / "alignments.npz"):
        old.unlink(missing_ok=True)
    names = [f"{speed:.2f}" for speed in config.speeds]
    if config.noise is not None:
        names += [f"noisy-{speed:.2f}" for speed in config.noisy_speeds]
    files = [(config.out / f"features-{name}.raw").open("wb") for name in names]
    if config.waveforms:
        names.append(SAMPLES)
        files.append((config.out / WAVEFORMS).open("wb"))
    ends = [0] * len(names)
    rows: list[str] = []
    with ProcessPoolExecutor(config.jobs) as pool:
        extracted = pool.map(extract, items, [config] * len(items), chunksize=16)
        for item, versions in track(
            zip(items, extracted, strict=True), total=len(items), description="features"
        ):
            if versions is None:
                continue
            spans = []
            for i, features in enumerate(versions):
                files[i].write(features.tobytes())
                spans.append(f"{ends[i]}:{ends[i] + len(features)}")
                ends[i] += len(features)
            text = " ".join(item.text.split())  # a manifest in jsonl may hold tabs and line ends
            rows.append("\t".join([item.path.stem, item.set, item.speaker, text, *spans]))
    for file in files:
        file.close()
    if not rows:
        raise ValueError(f"none of the {len(items):,} recordings can be read")
    header = "\t".join(["id", "set", "speaker", "text", *names])
    beside = table.with_name("utterances.tsv.partial")
    beside.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    os.replace(beside, table)
    hours = ends[0] / 100 / 3600 * config.speeds[0]
    print(f"{config.out}: {len(rows):,} utterances, {hours:.2f} h, {len(items) - len(rows)} skipped")


def cli(
    out: Annotated[Path, typer.Option(help="where the features go")],
    data: Annotated[Path | None, typer.Option(help="folder of the manifests and their audio")] = None,
    manifest: Annotated[
        list[str] | None,
        typer.Option(
            help="manifest, below --data if given (default: all training sets); "
            "trained on are recordings up to 20 s"
        ),
    ] = None,
    folder: Annotated[
        list[Path] | None,
        typer.Option(help="recordings, up to 20 s each, with their texts beside them: a.wav and a.txt"),
    ] = None,
    librispeech: Annotated[Path | None, typer.Option(help="folder that holds LibriSpeech/")] = None,
    common_voice: Annotated[Path | None, typer.Option(help="release of a language: clips/, *.tsv")] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="of LibriSpeech or Common Voice: train-clean-100, 10h, 1h, 10min, train, dev, ..."),
    ] = None,
    download: Annotated[bool, typer.Option(help="fetch the split of LibriSpeech if it is not there")] = False,
    development: Annotated[
        bool, typer.Option(help="at their own speed only; of --data the development sets")
    ] = False,
    noise: Annotated[Path | None, typer.Option(help="folder with noise.tsv: adds a noisy version")] = None,
    waveforms: Annotated[
        bool,
        typer.Option("--waveforms", help="keep the waveforms, for finetune.py --waveforms, not the speeds"),
    ] = False,
    jobs: Annotated[int, typer.Option(help="processes")] = 2,
) -> None:
    """Extract the features that the training recipes read."""
    speeds = (1.0,) if development or waveforms else Config.speeds
    with one_line_errors():
        if waveforms and (noise or development):
            raise ValueError(
                "--waveforms goes without --noise, which is mixed in while training, and --development"
            )
        if bool(librispeech or common_voice) != bool(split):
            raise ValueError("--librispeech or --common-voice goes with --split, as often as you like")
        if librispeech and common_voice:
            raise ValueError("--librispeech or --common-voice, one at a time: their splits have other names")
        manifests = manifest or ((DEVELOPMENT if development else TRAINING) if data else ())
        items: list[Item] = []
        for name in manifests:
            items += items_of(name.removesuffix(".tsv"), read_manifest((data or Path()) / name))
        for own in folder or ():
            items += items_of(own.resolve().name, read_folder(own))
        for name in split or ():
            if librispeech:
                items += items_of(f"librispeech/{name}", read_librispeech(librispeech, [name], download))
            if common_voice:
                items += items_of(f"commonvoice/{name}", read_common_voice(common_voice, [name]))
        main(Config(out=out, speeds=speeds, noise=noise, waveforms=waveforms, jobs=jobs), items)


if __name__ == "__main__":
    typer.run(cli)

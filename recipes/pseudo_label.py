"""Transcripts for speech that has none, where two listeners agree.

    python recipes/pseudo_label.py speech/ --out work/pseudo.tsv
    python recipes/prepare.py --data work --manifest pseudo.tsv --out work/prepared-pseudo

The first listener writes words: this project's recogniser with its language model (`--lm` takes one of the
kind of text that is spoken, where that is known), or, with `--transcripts`, whatever wrote a manifest of
these recordings. The second writes phones: the acoustic model alone, which knows no words. An utterance is
kept where few of the words' phones differ from the phones that were heard (`--max-rate`). Do it again with
the better model that comes of it (self-training: Scudder 1965; Kahn et al. 2020, Self-training for end-to-end
speech recognition).

The manifest holds the words of the first listener, and the rate at which the second disagrees.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from asr import Recognizer, audio
from asr.audio import AudioError
from asr.errors import one_line_errors
from asr.g2p import pronounce
from asr.manifest import Utterance, read_manifest
from asr.metrics import phone_errors
from asr.text import normalize


@dataclass(frozen=True, kw_only=True)
class Config:
    recordings: Sequence[str]
    out: Path
    transcripts: Path | None = None
    model: Path | None = None
    lm: Path | None = None
    lexicon: Sequence[Path] = ()
    max_rate: float = 0.2
    min_words: int = 3
    max_seconds: float = 20.0
    without: Sequence[Path] = ()


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """An utterance with a transcript, and the share of its phones that were heard otherwise."""

    utterance: Utterance
    rate: float


def main(config: Config) -> None:
    recognizer = Recognizer.load(model=config.model, lm=config.lm, lexicon=config.lexicon, user_lexicon=False)
    utterances = utterances_of(config)
    forbidden = {normalize(u.text) for manifest in config.without for u in read_manifest(manifest)}
    kept: list[Labelled] = []
    seconds = seen = 0.0
    for labelled in track(label(recognizer, utterances), total=len(utterances), description="listening"):
        seen += labelled.utterance.duration
        if good(labelled, config) and labelled.utterance.text not in forbidden:
            kept.append(labelled)
            seconds += labelled.utterance.duration
    write(config.out, kept)
    print(
        f"{config.out}: {len(kept):,} of {len(utterances):,} utterances, "
        f"{seconds / 3600:.2f} of {seen / 3600:.2f} h"
    )


def utterances_of(config: Config) -> list[Utterance]:
    """The recordings, with texts where there are any. Raises ValueError where nothing is found."""
    if config.transcripts is not None:
        return read_manifest(config.transcripts)
    found, problems = audio.find(config.recordings)
    if problems or not found:
        raise ValueError(problems[0] if problems else "name recordings, or a manifest by --transcripts")
    return [Utterance(path=Path(path)) for path in found]


def label(recognizer: Recognizer, utterances: Sequence[Utterance]) -> Iterator[Labelled]:
    """Both listeners on each utterance; what cannot be read is left out with a line on stderr."""
    variants = recognizer.lexicon.pronunciations()
    for utterance in utterances:
        try:
            waveform = audio.load(utterance.path)
        except AudioError as error:
            print(f"skipped: {error}", file=sys.stderr)
            continue
        transcript = recognizer.transcribe_waveform(waveform)
        text = normalize(utterance.text or transcript.text)
        words = text.split()
        for word in words:
            if word not in variants:
                variants[word] = pronounce([word], recognizer.model.phones)[0]
        rate = 1.0
        if words and all(variants[word] for word in words):
            rate = phone_errors([variants[word] for word in words], transcript.sounds).rate
        heard = Utterance(
            path=utterance.path,
            text=text,
            speaker=utterance.speaker,
            duration=len(waveform) / audio.SAMPLE_RATE,
        )
        yield Labelled(utterance=heard, rate=rate)


def good(labelled: Labelled, config: Config) -> bool:
    utterance = labelled.utterance
    return (
        labelled.rate <= config.max_rate
        and len(utterance.text.split()) >= config.min_words
        and utterance.duration <= config.max_seconds
    )


def write(path: Path, kept: Sequence[Labelled]) -> None:
    """A manifest with paths relative to it where the recordings lie below it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["path\tduration\tspeaker\ttext\tdisagreement"]
    for labelled in kept:
        u = labelled.utterance
        recording = u.path.resolve()
        folder = path.parent.resolve()
        name = recording.relative_to(folder) if recording.is_relative_to(folder) else recording
        lines.append(f"{name}\t{u.duration:.2f}\t{u.speaker}\t{u.text}\t{labelled.rate:.3f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def cli(
    out: Annotated[Path, typer.Option(help="manifest to write")],
    recordings: Annotated[list[str] | None, typer.Argument(help="files, folders or globs")] = None,
    transcripts: Annotated[
        Path | None, typer.Option(help="manifest of the recordings with another listener's texts")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="folder of an acoustic model")] = None,
    lm: Annotated[Path | None, typer.Option(help="ARPA language model")] = None,
    lexicon: Annotated[list[Path] | None, typer.Option(help="more words")] = None,
    max_rate: Annotated[
        float, typer.Option(help="most errors a phone between both listeners")
    ] = Config.max_rate,
    min_words: Annotated[int, typer.Option(help="fewest words of an utterance")] = Config.min_words,
    max_seconds: Annotated[float, typer.Option(help="longest utterance")] = Config.max_seconds,
    without: Annotated[
        list[Path] | None, typer.Option(help="manifest whose sentences must not be in the result")
    ] = None,
) -> None:
    """Write a manifest of the recordings whose words and sounds agree."""
    with one_line_errors():
        main(
            Config(
                recordings=recordings or (), out=out, transcripts=transcripts, model=model, lm=lm,
                lexicon=lexicon or (), max_rate=max_rate, min_words=min_words, max_seconds=max_seconds,
                without=without or (),
            )
        )  # fmt: skip


if __name__ == "__main__":
    typer.run(cli)

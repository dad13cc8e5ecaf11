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

`--without` keeps what models are judged by out of what they are trained on: recordings of those manifests, of
their speakers, and whatever sounds like one of their sentences. A listener mishears, so these need not be the
same words: a sentence of three words or more is left out where 40 % of its words or fewer are others.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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
from asr.metrics import align, count_errors, phone_errors
from asr.text import normalize

LIKE_WORDS, LIKE_RATE = 3, 0.4  # of a forbidden sentence: fewest words, most of them misheard


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


@dataclass(frozen=True)
class Forbidden:
    """Utterances that must not be in the result, and all that is like them."""

    paths: frozenset[Path]
    speakers: frozenset[str]
    sentences: tuple[tuple[str, ...], ...]  # their words
    counts: tuple[Counter[str], ...]  # how often a sentence has each of its words
    holders: dict[str, list[int]]  # word -> the sentences that have it

    @classmethod
    def of(cls, utterances: Iterable[Utterance]) -> Forbidden:
        listed = list(utterances)
        sentences = tuple(dict.fromkeys(tuple(normalize(u.text).split()) for u in listed))
        holders: dict[str, list[int]] = {}
        for i, sentence in enumerate(sentences):
            for word in set(sentence):
                holders.setdefault(word, []).append(i)
        return cls(
            frozenset(u.path.resolve() for u in listed),
            frozenset(u.speaker for u in listed if u.speaker),
            sentences,
            tuple(Counter(sentence) for sentence in sentences),
            holders,
        )

    def has_recording(self, utterance: Utterance) -> bool:
        """Whether it is one of these recordings, or spoken by one of these speakers."""
        return utterance.path.resolve() in self.paths or utterance.speaker in self.speakers

    def has_text(self, text: str) -> bool:
        """Whether a text in normal form is one of the sentences, give or take some misheard words."""
        said = text.split()
        shared: Counter[int] = Counter()  # sentence -> words that it has in common with the text
        for word, count in Counter(said).items():
            for i in self.holders.get(word, ()):
                shared[i] += min(count, self.counts[i][word])
        for i, common in shared.items():
            sentence = self.sentences[i]
            allowed = LIKE_RATE * len(sentence) if len(sentence) >= LIKE_WORDS else 0
            # At least so many words differ, in whatever order they are.
            if max(len(said), len(sentence)) - common > allowed:
                continue
            if count_errors(align(sentence, said)).errors <= allowed:
                return True
        return False


def main(config: Config) -> None:
    """Raises ValueError as `Recognizer.load`, `utterances_of` and `read_manifest`."""
    utterances = utterances_of(config)
    forbidden = Forbidden.of(u for manifest in config.without for u in read_manifest(manifest))
    recognizer = Recognizer.load(model=config.model, lm=config.lm, lexicon=config.lexicon, user_lexicon=False)
    allowed = [u for u in utterances if not forbidden.has_recording(u)]
    left_out = len(utterances) - len(allowed)
    kept: list[Labelled] = []
    seconds = seen = 0.0
    for labelled in track(label(recognizer, allowed), total=len(allowed), description="listening"):
        seen += labelled.utterance.duration
        if not good(labelled, config):
            continue
        if forbidden.has_text(labelled.utterance.text):
            left_out += 1
            continue
        kept.append(labelled)
        seconds += labelled.utterance.duration
    write(config.out, kept)
    print(
        f"{config.out}: {len(kept):,} of {len(utterances):,} utterances, "
        f"{seconds / 3600:.2f} of {seen / 3600:.2f} h"
        + (f", {left_out:,} left out by --without" if config.without else "")
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
        list[Path] | None,
        typer.Option(
            help="manifest whose recordings, speakers and sentences, some words misheard, "
            "must not be in the result"
        ),
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

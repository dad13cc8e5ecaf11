"""More to train on: sentences without sense from the aligned words of prepared speech.

    python recipes/splice.py --prepared work/real --out work/spliced --seed 1
    python recipes/finetune.py --prepared work/real --prepared work/spliced --waveforms ...

Takes a folder that was prepared with --waveforms and aligned, and writes another one beside it, aligned too:
each of its words once, in phrases of a few words, which are shuffled over recordings of one speaker, or of
one set where speakers are not known (asr/training/splices.py). Another seed makes other sentences.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track

from asr.errors import one_line_errors
from asr.model.features import FRAMES_PER_SECOND, LogMel
from asr.training.prepared import SAMPLES, WAVEFORMS, Alignments, Prepared
from asr.training.snippets import WordPlaces
from asr.training.splices import Phrase, SpliceConfig, join, plan_splices


@dataclass(frozen=True, kw_only=True)
class Config:
    prepared: Path
    out: Path
    splices: SpliceConfig = field(default_factory=SpliceConfig)
    seed: int = 1


def main(config: Config) -> None:
    """Raises ValueError for a folder without waveforms or alignments, where no word's place is known, and for
    an `out` that is the folder itself."""
    if config.out.resolve() == config.prepared.resolve():
        raise ValueError(f"--out {config.out} is the prepared speech itself: name another folder")
    prepared, alignments = Prepared.open(config.prepared), Alignments.open(config.prepared / "alignments.npz")
    if prepared.waveforms is None:
        raise ValueError(f"{config.prepared}: no waveforms: prepare it with recipes/prepare.py --waveforms")
    try:
        alignments.check_of(prepared)
    except ValueError as error:
        raise ValueError(f"{config.prepared}: {error}") from None
    sentences = list(plan(config, prepared, alignments))
    if not sentences:
        raise ValueError(
            f"{config.prepared}: no places of words: run recipes/align.py again, without --spoken"
        )
    config.out.mkdir(parents=True, exist_ok=True)
    table = config.out / "utterances.tsv"
    for old in (table, config.out / "alignments.npz"):
        old.unlink(missing_ok=True)
    write_sentences(config, prepared, sentences)
    write_alignments(config, prepared, alignments, sentences)
    frames = sum(of.last - of.first for sentence in sentences for of in sentence)
    print(f"{config.out}: {len(sentences):,} sentences, {frames / FRAMES_PER_SECOND / 3600:.2f} h")


def plan(config: Config, prepared: Prepared, alignments: Alignments) -> Iterator[list[Phrase]]:
    utterances = prepared.utterances
    frames = [int(np.diff(u.spans["1.00"])[0]) for u in utterances]
    indices = range(len(utterances))
    words = WordPlaces.of(
        np.split(alignments.classes, np.cumsum(frames)[:-1]),
        [alignments.targets(i) for i in indices],
        [alignments.starts_of_words(i) for i in indices],
    )
    speakers = [(u.set, u.speaker) for u in utterances]
    return plan_splices(speakers, frames, words, config.splices, np.random.default_rng(config.seed))


def write_sentences(config: Config, prepared: Prepared, sentences: list[list[Phrase]]) -> None:
    """Waveforms, features and last of all the table."""
    torch.set_num_threads(1)
    log_mel = LogMel()
    assert prepared.waveforms is not None
    rows = ["\t".join(["id", "set", "speaker", "text", "1.00", SAMPLES])]
    frames = samples = 0
    with (
        (config.out / WAVEFORMS).open("wb") as waveforms,
        (config.out / "features-1.00.raw").open("wb") as features,
    ):
        for k, sentence in enumerate(track(sentences, description="sentences")):
            sources = [prepared.utterances[phrase.recording] for phrase in sentence]
            spans = [source.samples for source in sources]
            waveform = join(sentence, [prepared.waveforms[slice(*span)] for span in spans if span])
            heard, _ = log_mel(torch.from_numpy(waveform / np.float32(32_768))[None], torch.tensor([0]))
            waveforms.write(waveform.tobytes())
            features.write(heard[0].numpy().astype(np.float16).tobytes())
            spoken = f"{frames}:{frames + heard.shape[1]}"
            rows.append(
                "\t".join(
                    [f"splice{k}", sources[0].set, sources[0].speaker, "", spoken,
                     f"{samples}:{samples + len(waveform)}"]
                )
            )  # fmt: skip
            frames, samples = frames + heard.shape[1], samples + len(waveform)
    beside = config.out / "utterances.tsv.partial"
    beside.write_text("\n".join(rows) + "\n", encoding="utf-8")
    os.replace(beside, config.out / "utterances.tsv")


def write_alignments(
    config: Config, prepared: Prepared, alignments: Alignments, sentences: list[list[Phrase]]
) -> None:
    classes, phones, word_starts, offsets = [], [], [], [0]
    for sentence in sentences:
        for phrase in sentence:
            first = prepared.utterances[phrase.recording].spans["1.00"][0]
            of_words = slice(phrase.first_phone, phrase.last_phone)
            classes.append(alignments.classes[first + phrase.first : first + phrase.last])
            phones.append(alignments.targets(phrase.recording)[of_words])
            word_starts.append(alignments.starts_of_words(phrase.recording)[of_words])
        offsets.append(sum(map(len, phones[-len(sentence) :])) + offsets[-1])
    Alignments(
        np.concatenate(phones), np.array(offsets, np.int64), np.concatenate(classes),
        Prepared.open(config.out).digest(), np.concatenate(word_starts),
    ).save(config.out / "alignments.npz")  # fmt: skip


def cli(
    prepared: Annotated[Path, typer.Option(help="speech with waveforms and alignments")],
    out: Annotated[Path, typer.Option(help="folder of the new sentences")],
    words: Annotated[int, typer.Option(min=1, help="most words of a phrase")] = SpliceConfig.words,
    recordings: Annotated[
        int, typer.Option(min=1, help="most recordings that are shuffled together")
    ] = SpliceConfig.recordings,
    seed: Annotated[int, typer.Option(help="of phrases and their order")] = 1,
) -> None:
    """Make sentences of the words of other sentences."""
    with one_line_errors():
        splices = SpliceConfig(words=words, recordings=recordings)
        main(Config(prepared=prepared, out=out, splices=splices, seed=seed))


if __name__ == "__main__":
    typer.run(cli)

"""The files of zero_shot.py: made once from the speech and text data, and kept in its work folder."""

from __future__ import annotations

import hashlib
import random
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import train_lm
from prepare import DEVELOPMENT, TRAINING
from zero_shot_task import choose

from asr import paths
from asr.g2p import pronounce
from asr.lexicon import Entry, read_entries
from asr.lines import format_entry
from asr.manifest import Utterance, read_manifest
from asr.phones import PhoneSet
from asr.text import normalize
from asr.training.lm_text import FORBIDDEN, texts_of

NAME, TOO_FREQUENT = "smith", 1_000  # for like=: the place of a name; words that say nothing of a class
FEWEST_LETTERS, MOST_LETTERS = 5, 12  # of an invented name
SYLLABLE = re.compile("[^aeiouy]*[aeiouy]+(?:[^aeiouy]+$)?")


@dataclass(frozen=True, kw_only=True)
class Speech:
    """All utterances: `log_probs` float32 (batch, frames, tokens), padded, `lengths` (batch,) frames of each;
    `references` in normal form."""

    log_probs: np.ndarray
    lengths: np.ndarray
    references: list[list[str]]
    hours: float


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A half of the words, held out. Neither `lexicon` nor `lm` knows them; `guessed` and `given` are their
    lines as G2P and as the base lexicon have them. `known` is the other half."""

    number: int
    held_out: frozenset[str]
    known: frozenset[str]
    guessed: tuple[Entry, ...]
    given: tuple[Entry, ...]
    lexicon: Path
    lm: Path


@dataclass(frozen=True, kw_only=True)
class Task:
    """`distractors`: lines of words that nobody says. `frequent`: the lexicon's words, the most frequent
    first."""

    speech: Speech
    phones: PhoneSet
    folds: tuple[Fold, ...]
    distractors: tuple[Entry, ...]
    frequent: tuple[str, ...]


def prepare(data: Path, work: Path, num_distractors: int, seed: int, listed: Path | None = None) -> Task:
    """What `work` lacks is made; the language models take most of the time.

    `listed`: a file of distractors, one a line; of these only words count that are neither known nor said.

    Raises ValueError and OSError, each in words for the user.
    """
    phones = PhoneSet.read(paths.PRETRAINED / "phones.txt")
    entries, _ = read_entries(paths.base_lexicon(), phones)
    development = read_manifests(data, DEVELOPMENT)
    references, trained = words_of(development), words_of(read_manifests(data, TRAINING))
    halves = choose(references, trained, entries, seed)
    folds = [make_fold(i, halves, entries, phones, data, work) for i in range(len(halves))]
    known = {entry.word for entry in entries}.union(*references)
    frequent = tuple(dict.fromkeys(entry.word for entry in entries))
    if listed is None:
        names = invent(frequent, known, num_distractors, seed)
    else:
        names = read_names(listed, known, num_distractors)
    return Task(
        speech=read_speech(development, references, work),
        phones=phones,
        folds=tuple(folds),
        distractors=guess(names, phones),
        frequent=frequent,
    )


def read_manifests(data: Path, names: Iterable[str]) -> list[Utterance]:
    """Those that are there. Raises ValueError where none is."""
    there = [data / name for name in names if (data / name).is_file()]
    if not there:
        raise ValueError(f"{data}: none of the sets is there: name their folder by --data")
    return [utterance for path in there for utterance in read_manifest(path)]


def words_of(utterances: Iterable[Utterance]) -> list[list[str]]:
    return [normalize(utterance.text).split() for utterance in utterances]


def guess(words: Sequence[str], phones: PhoneSet) -> tuple[Entry, ...]:
    """The entries of words that have no pronunciation in a lexicon file; silent ones are left out."""
    found = zip(words, pronounce(words, phones), strict=True)
    return tuple(Entry(word=word, phones=said) for word, sounds in found for said in sounds)


def make_fold(
    number: int,
    halves: Sequence[Sequence[str]],
    entries: Sequence[Entry],
    phones: PhoneSet,
    data: Path,
    work: Path,
) -> Fold:
    folder = work / f"fold{number}"
    folder.mkdir(parents=True, exist_ok=True)
    held_out = frozenset(halves[number])
    fold = Fold(
        number=number,
        held_out=held_out,
        known=frozenset(word for half in halves for word in half) - held_out,
        guessed=guess(halves[number], phones),
        given=tuple(entry for entry in entries if entry.word in held_out),
        lexicon=folder / "lexicon.txt",
        lm=folder / "lm.arpa",
    )
    rest = [format_entry(entry, phones) for entry in entries if entry.word not in held_out]
    fold.lexicon.write_text("\n".join(rest) + "\n", encoding="utf-8")
    listed, made_for = folder / "held_out.txt", folder / "lm.words.txt"
    listed.write_text("\n".join(halves[number]) + "\n", encoding="utf-8")
    # Beside the model lies what it was made for: it is made anew for other words, held out or known.
    key = key_of(halves[number], [path.name for path in texts_of(data)])
    if not fold.lm.is_file() or not made_for.is_file() or made_for.read_text() != key:
        train_lm.main(language_model(data, listed, fold.lm))
        made_for.write_text(key)
    return fold


def key_of(held_out: Sequence[str], texts: Sequence[str]) -> str:
    """Of the language model of these texts without these words of the base lexicon."""
    known = hashlib.sha256(paths.base_lexicon().read_bytes()).hexdigest()
    sizes = f"{train_lm.EMBEDDED_UNSEEN_SHARE} {train_lm.EMBEDDED_MIN_COUNT} {train_lm.EMBEDDED_NGRAMS}"
    return "\n".join([*held_out, *texts, f"{sizes} {known}"])


def language_model(data: Path, without: Path, out: Path) -> train_lm.Config:
    """That of the embedded model, but for the words held out."""
    return train_lm.Config(
        texts=tuple(texts_of(data)),
        out=out,
        exclude=tuple(sorted(data.glob(FORBIDDEN))),
        lexicon=paths.base_lexicon(),
        without=without,
        unseen_share=train_lm.EMBEDDED_UNSEEN_SHARE,
        min_count=train_lm.EMBEDDED_MIN_COUNT,
        max_ngrams=train_lm.EMBEDDED_NGRAMS,
    )


def read_speech(utterances: Sequence[Utterance], references: list[list[str]], work: Path) -> Speech:
    """Posteriors of the embedded model."""
    weights = (paths.PRETRAINED / "model.safetensors").read_bytes()
    file = work / f"speech-{hashlib.sha256(weights).hexdigest()[:8]}.npz"
    if not file.is_file():
        write_emissions(utterances, file)
    with np.load(file) as archive:
        frames, lengths, hours = archive["log_probs"], archive["lengths"], float(archive["hours"])
    if len(lengths) != len(utterances):
        raise ValueError(f"{file}: of other recordings: delete it")
    log_probs = np.zeros((len(lengths), lengths.max(), frames.shape[1]), np.float32)
    for row, end, length in zip(log_probs, np.cumsum(lengths), lengths, strict=True):
        row[:length] = frames[end - length : end]
    return Speech(log_probs=log_probs, lengths=lengths, references=references, hours=hours)


def write_emissions(utterances: Sequence[Utterance], file: Path) -> None:
    import torch

    from asr import audio
    from asr.model.checkpoint import load_model

    torch.set_num_threads(1)
    model = load_model()
    frames: list[np.ndarray] = []
    samples = 0
    for utterance in utterances:
        waveform = audio.load(utterance.path)
        samples += len(waveform)
        frames.append(model.log_probs([waveform])[0][0].numpy().astype(np.float16))
        print(f"\rposteriors: {len(frames):,} of {len(utterances):,}", end="", file=sys.stderr)
    print(file=sys.stderr)
    np.savez_compressed(
        file,
        log_probs=np.concatenate(frames),
        lengths=np.array([len(f) for f in frames]),
        hours=samples / audio.SAMPLE_RATE / 3600,
    )


def invent(words: Sequence[str], known: Collection[str], number: int, seed: int) -> list[str]:
    """Names that are no words: the first syllables of one of `words` and the last of another, in spelling."""
    lots = random.Random(seed)
    parted = [parts for parts in map(SYLLABLE.findall, words) if len(parts) > 1]
    found: dict[str, None] = {}
    while len(found) < number:
        head, tail = lots.choice(parted), lots.choice(parted)
        name = "".join(head[: lots.randint(1, len(head) - 1)] + tail[-lots.randint(1, len(tail) - 1) :])
        if FEWEST_LETTERS <= len(name) <= MOST_LETTERS and name not in known:
            found[name] = None
    return list(found)


def read_names(file: Path, known: Collection[str], number: int) -> list[str]:
    """The first so many lines that are not `known`. Raises ValueError where there are fewer."""
    lines = map(normalize, file.read_text(encoding="utf-8").splitlines())
    found = [name for name in dict.fromkeys(lines) if name and name not in known]
    if len(found) < number:
        raise ValueError(f"{file}: {len(found):,} names that are not known, {number:,} are needed")
    return found[:number]


def with_likes(fold: Fold, names: Sequence[Entry], frequent: Sequence[str]) -> tuple[Entry, ...]:
    """What a user in a hurry would write: each held-out word is like the most frequent word of the same
    ending but for the most frequent of all, and every name like NAME."""
    by_ending: dict[str, str] = {}
    for word in frequent[TOO_FREQUENT:]:
        if word not in fold.held_out:
            by_ending.setdefault(word[-3:], word)
    words = (replace(entry, like=by_ending.get(entry.word[-3:], "")) for entry in fold.guessed)
    return (*words, *(replace(entry, like=NAME) for entry in names))

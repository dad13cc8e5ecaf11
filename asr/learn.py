"""A word learnt by saying it: how it is pronounced, by its spelling and by recordings of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asr import audio, paths, words
from asr.lexicon import Entry
from asr.lines import Sounds, find_base, guess_sounds, valid_word
from asr.phones import PhoneSet
from asr.rank import Candidate, rank
from asr.spoken import find_span, trim

if TYPE_CHECKING:
    from asr.model.checkpoint import AcousticModel

LANGUAGES = ("en-us", "en-gb", "de", "fr-fr", "es", "it")
LEXICON = "lexicon"
SHORTEST_S = 0.12  # what is shorter is a click, or a part of a word
WORD_S = 3.0  # what takes longer is no word, but a sentence
LONGEST_S = 30.0
_FOREIGN = 2.0  # handicap of a guess by the rules of another language than American English


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The word in a recording: `log_probs` (frames, tokens), natural log, from `start_s` to `end_s`."""

    path: str
    log_probs: np.ndarray
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """`candidates`, best first; `added` are the entries written, none for a dry run and where the file has
    the word with the chosen sounds already. `notes`: remarks for the user, a line each."""

    word: str
    candidates: tuple[Candidate, ...]
    chosen: Candidate
    added: tuple[Entry, ...]
    notes: tuple[str, ...]


def learn(
    word: str,
    recordings: Sequence[str | Path],
    *,
    file: str | Path | None = None,
    like: str | None = None,
    boost: float | None = None,
    choose: int = 1,
    dry_run: bool = False,
    in_sentence: bool = False,
    languages: Sequence[str] = LANGUAGES,
    model: str | Path | None = None,
    device: str = "auto",
    lm: str | Path | None = None,
) -> Learnt:
    """Find out how `word` is said in `recordings` of it alone and write it into a lexicon file (the user's
    own by default). With `in_sentence` other words may stand around it.

    Candidates are what the lexicons have, guesses by the rules of `languages`, and what is heard. `choose`:
    the place of the one to add, from 1.

    Raises ValueError (AudioError for a recording that cannot be read), also where nothing is said in one, and
    OSError.
    """
    from asr.model.checkpoint import load_model
    from asr.transcribe import choose_device

    if not recordings:
        raise ValueError(f"give at least one recording of {word!r}")
    word = valid_word(word)
    acoustic = load_model(model, choose_device(device))
    if like is not None:
        like = words.check_like(like, lm)
    base, own = _known(word, file, acoustic.phones)
    guesses = guesses_of(word, [e.phones for e in (*base, *own)], languages, acoustic.phones)
    if in_sentence and not guesses:
        raise ValueError(f"{word!r} cannot be guessed, so not be found in a sentence: record it alone")
    heard = [listen(path, acoustic, tuple(guesses) if in_sentence else ()) for path in recordings]
    candidates = rank([r.log_probs for r in heard], guesses, acoustic.phones, phone_lm=acoustic.phone_lm)
    if not 1 <= choose <= len(candidates):
        raise ValueError(
            f"there are {len(candidates)} pronunciations to choose from, none is number {choose}"
        )
    chosen = candidates[choose - 1]
    notes = []
    added: list[Entry] = []
    there = next((e for e in own if e.phones == chosen.sounds and e.word == word), None)
    if there is not None and like is None and boost is None:
        notes.append(f"{there.where}: {word!r} has these sounds already; nothing to add")
    elif not dry_run:
        added = words.add(
            word, [" ".join(chosen.sounds)], file=file, like=like, boost=boost, phones=acoustic.phones, lm=lm
        )
    return Learnt(
        word=word, candidates=tuple(candidates), chosen=chosen, added=tuple(added), notes=tuple(notes)
    )


def guesses_of(
    word: str, known: Sequence[Sounds], languages: Sequence[str], phones: PhoneSet
) -> dict[Sounds, tuple[list[str], float]]:
    """Sounds -> where they come from and their handicap: those of the lexicon, then guesses.

    Raises ValueError for an unknown language.
    """
    from asr.g2p import pronounce

    found: dict[Sounds, tuple[list[str], float]] = {said: ([LEXICON], 0.0) for said in known}
    # A word in another script has no guesses: its letters would be named.
    readable = any(guess_sounds([word], phones))
    for language in languages:
        handicap = 0.0 if language == "en-us" else _FOREIGN
        for said in pronounce([word], phones, language)[0] if readable else ():
            sources, least = found.get(said, ([], handicap))
            found[said] = ([*sources, language], min(least, handicap))
    return found


def listen(path: str | Path, model: AcousticModel, around: Sequence[Sounds] = ()) -> Recording:
    """The word of a recording without the silence around it; where the nearest of the pronunciations `around`
    lies, if any are given. Raises AudioError, and ValueError where nothing is said or too much."""
    waveform = audio.load(path)
    seconds = len(waveform) / audio.SAMPLE_RATE
    if seconds > LONGEST_S:
        raise ValueError(f"{path}: {seconds:.0f} s long; a recording of a word may take {LONGEST_S:.0f} s")
    log_probs, lengths = model.log_probs([waveform])
    rows = log_probs[0, : int(lengths[0])].float().cpu().numpy()
    first, last = trim(rows) if audio.cut(waveform) else (0, 0)
    if not last:
        raise ValueError(f"{path}: no speech in it")
    if around:
        first, last = best_span(rows, [tuple(model.phones.encode(said)) for said in around])
        if not last:
            raise ValueError(f"{path}: too short for the word")
    start_s, end_s = first * model.frame_s, min(last * model.frame_s, seconds)
    if end_s - start_s < SHORTEST_S and not around:
        raise ValueError(f"{path}: {end_s - start_s:.2f} s of speech, less than a word: record all of it")
    if end_s - start_s > WORD_S:
        raise ValueError(
            f"{path}: {end_s - start_s:.1f} s of speech, more than a word takes: record the word alone, or "
            "use --in-sentence"
        )
    return Recording(path=str(path), log_probs=rows[first:last], start_s=start_s, end_s=end_s)


def best_span(log_probs: np.ndarray, pronunciations: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """First frame, and the one after the last, of the pronunciation that is found most clearly anywhere in
    the log-probs, with silence that follows; (0, 0) where there are too few frames."""
    spans = [found for tokens in pronunciations if (found := find_span(log_probs, tokens, free=True))]
    if not spans:
        return 0, 0
    best = max(spans, key=lambda span: span.score)
    # A phone may begin before the frame in which it is the likeliest; what follows the last one is its end.
    end = best.end
    while end < len(log_probs) and log_probs[end].argmax() == 0:
        end += 1
    return max(0, best.frames[0] - 1), min(end, best.end + 4)


def _known(word: str, file: str | Path | None, phones: PhoneSet) -> tuple[list[Entry], list[Entry]]:
    """Entries of the base lexicon, and of the file that is to be written, as far as they have sounds."""
    path = paths.user_lexicon() if file is None else Path(file)
    own = words.entries(path, phones) if path.is_file() else []
    base = find_base({word, word.lower()}, phones=phones)
    return base, [entry for entry in own if entry.word in (word, word.lower()) and entry.phones]

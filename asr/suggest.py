"""Words that no lexicon has, collected from recordings, with a guess at how they are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from asr import paths
from asr.edit import check_writable, edit_lines
from asr.lines import Sounds, find_base, parsed
from asr.neighbours import Sorted, confusion_costs, find_neighbours
from asr.phones import PhoneSet
from asr.spelling import Spelling
from asr.transcribe import Failure, Recognizer
from asr.types import Transcript

# What an unknown word scores: more than where a transcript is wanted, for here a mark too many does no harm.
UNKNOWN_SCORE = -0.5
_ALIKE = 1.0  # distance a phone, up to which two marks are one word: about one sound in four misheard
_FEWEST, _MOST = 3, 14  # phones: of fewer there is too little to go by, more are several words


@dataclass(frozen=True, kw_only=True)
class Place:
    """A mark: where it is, seconds; what was heard; how clearly, as Word.score."""

    path: str
    start_s: float
    end_s: float
    sounds: Sounds
    score: float


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """`spellings`, best first, of `sounds`, the middle of what was heard in `places`. `known`: the base
    lexicon has the first spelling, with other sounds."""

    spellings: tuple[str, ...]
    sounds: Sounds
    places: tuple[Place, ...]
    known: bool = False

    @property
    def spelling(self) -> str:
        return self.spellings[0]


@dataclass(frozen=True, kw_only=True)
class Suggested:
    """`suggestions`, the frequent ones first; `added`: lines that were written; `left_out`: marks too
    short or too long to be a word."""

    suggestions: tuple[Suggestion, ...]
    added: tuple[str, ...]
    left_out: int
    failures: tuple[Failure, ...]


def suggest(
    recordings: Sequence[str | Path],
    *,
    file: str | Path | None = None,
    add: bool = False,
    least: int = 1,
    model: str | Path | None = None,
    lm: str | Path | None = None,
    device: str = "auto",
    progress: Callable[[float], None] = lambda seconds: None,
) -> Suggested:
    """Transcribe recordings and suggest words for what no word explains, if heard `least` times.

    Known are the base lexicon and `file`, the user's own by default; `add` writes the suggestions at its end,
    as comments to be confirmed. A file
    that is not there is made. Raises ValueError (LexiconError) and OSError.
    """
    from asr.decoder import for_embedded_model

    path = paths.user_lexicon() if file is None else Path(file)
    if add:
        check_writable(path)  # before the work, not after it
    options = for_embedded_model(unknown="mark", unknown_score=UNKNOWN_SCORE)
    mine = [] if file is None or (add and not path.exists()) else [file]
    recognizer = Recognizer.load(
        model=model, lexicon=mine, lm=lm, device=device, options=options,
        user_lexicon=file is None,
    )  # fmt: skip
    results = list(recognizer.stream(recordings, progress))
    found = marks([result for result in results if isinstance(result, Transcript)])
    usable = [mark for mark in found if _FEWEST <= len(mark.sounds) <= _MOST]
    phones = recognizer.model.phones
    groups = [group for group in group_alike(usable, phones) if len(group) >= least]
    order = {place: i for i, place in enumerate(found)}
    suggestions = _spelled(groups, order, phones)
    return Suggested(
        suggestions=tuple(suggestions),
        added=tuple(add_comments(suggestions, path, phones)) if add else (),
        left_out=len(found) - len(usable),
        failures=tuple(result for result in results if isinstance(result, Failure)),
    )


def marks(transcripts: Sequence[Transcript]) -> list[Place]:
    """The words of transcripts that are written as their phones."""
    return [
        Place(path=t.path, start_s=w.start_s, end_s=w.end_s, sounds=w.phones, score=w.score)
        for t in transcripts
        for w in t.words
        if w.text == f"<{''.join(w.phones)}>"
    ]


def group_alike(places: Sequence[Place], phones: PhoneSet) -> list[list[Place]]:
    """Marks that sound alike together, the largest groups first; in a group the middle of it first."""
    by_sounds: dict[Sounds, list[Place]] = {}
    for place in places:
        by_sounds.setdefault(place.sounds, []).append(place)
    # The search wants them in the order of their tokens.
    sounds = sorted(by_sounds, key=phones.encode)
    offsets = np.cumsum([0, *map(len, sounds)])
    among = Sorted.of(np.array([t for said in sounds for t in phones.encode(said)], np.int16), offsets)
    costs = confusion_costs(phones)
    near: list[dict[int, float]] = []
    for said in sounds:
        bound = _ALIKE * len(said)
        numbers, distances = find_neighbours(np.array(phones.encode(said)), among, costs, bound)
        near.append(dict(zip(numbers.tolist(), distances.tolist(), strict=True)))
    weights = [len(by_sounds[said]) for said in sounds]
    # Who has the most marks around it is the middle of a group.
    crowd = [sum(weights[k] for k in around) for around in near]
    clear = [max(place.score for place in by_sounds[said]) for said in sounds]
    free, groups = set(range(len(sounds))), []
    for middle in sorted(range(len(sounds)), key=lambda i: (-crowd[i], -clear[i], sounds[i])):
        if middle in free:
            members = sorted((k for k in near[middle] if k in free), key=lambda k: (near[middle][k], k))
            free -= set(members)
            groups.append([place for k in members for place in by_sounds[sounds[k]]])
    return sorted(groups, key=lambda group: -len(group))


def _spelled(
    groups: Sequence[Sequence[Place]], order: Mapping[Place, int], phones: PhoneSet
) -> list[Suggestion]:
    if not groups:
        return []
    model = Spelling.load(phones)
    found = [
        Suggestion(
            spellings=tuple(spellings),
            sounds=group[0].sounds,
            places=tuple(sorted(group, key=lambda place: order[place])),
        )
        for group in groups
        if (spellings := model.spell(phones.encode(group[0].sounds), 3))
    ]
    there = find_base({s.spelling for s in found}, {s.sounds for s in found}, phones=phones)
    names, known = {entry.word for entry in there}, {entry.phones for entry in there}
    # A mark with the sounds of a word is that word where it was not expected.
    return [
        replace(suggestion, known=suggestion.spelling in names)
        for suggestion in found
        if suggestion.sounds not in known
    ]


def add_comments(suggestions: Sequence[Suggestion], path: Path, phones: PhoneSet) -> list[str]:
    """Write suggestions at the end of a lexicon file, as comments that become entries when the first # is
    deleted; the lines. What stands there already, as a comment or an entry, is left out."""
    added: list[str] = []

    def change(lines: list[str]) -> list[str]:
        there = {" ".join(line.lstrip("# ").split("#")[0].split()) for line in lines}
        sounds = {entry.phones for entry in parsed(lines, phones, path)}
        for suggestion in suggestions:
            said = " ".join(suggestion.sounds)
            if f"{suggestion.spelling} {said}" in there or suggestion.sounds in sounds:
                continue
            first, count = suggestion.places[0], len(suggestion.places)
            times = "once," if count == 1 else f"{count} times, first"
            where = f"in {Path(first.path).name} at {first.start_s:.1f} s"
            added.append(f"# {suggestion.spelling}\t{said}   # {times} {where}")
        return [*lines, *added]

    edit_lines(path, change)
    return added

"""What is wrong with a lexicon, and which of its words will be confused with others, before any is heard.

A word that is said wins over one that sounds like it unless the other scores more than the sounds differ: by
exp(lead - distance) is it likelier that the other is written. Scores are the decoder's, without context.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asr import paths
from asr.lexicon import Entry, parse_line
from asr.lines import Sounds, fill_sounds, find_base, lenient
from asr.phones import PhoneSet
from asr.text import normalize

if TYPE_CHECKING:
    from asr.contexts import Loss
    from asr.decoder.ngram import NgramModel
    from asr.decoder.options import DecoderOptions

SHORT = 2  # phones that are found inside other words
LARGE_BOOST = 3.0
NEAR = 3.6  # distance of words that differ by one sound that is often taken for the other
FAR = 10.0  # distance beyond which nothing is looked for
WORTH = 0.2  # share of a word's uses that may go wrong without a remark
LOST = math.log(WORTH)
_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One remark: `message` says what is wrong and what to do."""

    where: str
    word: str
    message: str
    error: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.word}: {self.message}"


def _finding(entry: Entry, message: str, error: bool = False) -> Finding:
    return Finding(where=entry.where, word=entry.word, message=message, error=error)


def check(
    files: Sequence[str | Path] | None = None,
    *,
    frequent: int = 10_000,
    phones: PhoneSet | None = None,
    lm: str | Path | None = None,
    options: DecoderOptions | None = None,
) -> list[Finding]:
    """Findings on lexicon files, the user's own by default, in the order of their lines.

    `frequent`: how many of the language model's most frequent words to guard. Raises ValueError for files
    that are missing or no text, and OSError.
    """
    from asr.decoder.ngram import NgramModel
    from asr.decoder.options import for_embedded_model

    phones = phones or PhoneSet.read(paths.PRETRAINED / "phones.txt")
    if lm is not None and not Path(lm).is_file():
        raise ValueError(f"{lm}: no such language model file")
    if files is None:
        files = [paths.user_lexicon()] if paths.user_lexicon().is_file() else []
    read = [item for file in files for item in _read(Path(file), phones)]
    entries, findings = _guess([item for item in read if isinstance(item, Entry)], phones)
    findings += [item for item in read if isinstance(item, Finding)]
    findings += _among_themselves(entries)
    if entries:
        model = NgramModel.read(lm or paths.language_model())
        known = frozenset(model.words)
        options = options or for_embedded_model()
        findings += _in_base(entries, model, phones, options)
        findings += [f for entry in entries for f in _of_one(entry, known)]
        findings += _against_frequent(entries, model, frequent, phones, options)
    return _in_order(findings, files)


def _read(path: Path, phones: PhoneSet) -> Iterator[Entry | Finding]:
    if not path.is_file():
        raise ValueError(f"{path}: no such lexicon file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeError:
        raise ValueError(f"{path}: not a lexicon file: it is not UTF-8 text") from None
    for number, line in enumerate(text.splitlines(), 1):
        try:
            entry = parse_line(line, phones, str(path), number)
        except ValueError as error:
            bad = lenient(line, phones, path, number)
            assert bad is not None  # only a comment is nothing, and that is no error
            yield _finding(bad, str(error), error=True)
            continue
        if entry is not None:
            yield entry


def _guess(entries: Sequence[Entry], phones: PhoneSet) -> tuple[list[Entry], list[Finding]]:
    """Entries with their sounds; findings on those that cannot be guessed or were spelt."""
    filled, missing = fill_sounds(entries, phones)
    findings = [
        _finding(entry, "cannot be guessed from its spelling: write its sounds", error=True)
        for entry in missing
    ]
    letters = _letter_names({c for e in filled if _may_be_spelt(e) for c in e.word}, phones)
    for entry in filled:
        if _may_be_spelt(entry) and _is_spelt(entry, letters):
            said = " ".join(entry.phones)
            message = f"spelt letter by letter, {said}: if it is said as a word, write its sounds"
            findings.append(_finding(entry, message))
    return filled, findings


def _may_be_spelt(entry: Entry) -> bool:
    """Capitals are meant to be spelt, and long words never are."""
    return entry.word.isalpha() and 2 <= len(entry.word) <= 8 and not entry.word.isupper()


def _letter_names(letters: set[str], phones: PhoneSet) -> dict[str, Sounds]:
    from asr.g2p import pronounce

    ordered = sorted(letters)
    found = pronounce([letter.upper() for letter in ordered], phones) if ordered else []
    return {letter: names[0] if names else () for letter, names in zip(ordered, found, strict=True)}


def _is_spelt(entry: Entry, letters: dict[str, Sounds]) -> bool:
    """Up to an r that joins two letters."""
    spelt = [p for letter in entry.word for p in letters[letter]]
    return [p for p in spelt if p != "ɹ"] == [p for p in entry.phones if p != "ɹ"] and bool(spelt)


def _among_themselves(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Duplicates and homophones within the files."""
    first: dict[tuple[str, Sounds], Entry] = {}
    by_sounds: dict[Sounds, Entry] = {}
    for entry in entries:
        before = first.setdefault((entry.word, entry.phones), entry)
        if before is not entry:
            yield _finding(entry, f"stands at {before.where} already with these sounds: remove one of them")
            continue
        other = by_sounds.setdefault(entry.phones, entry)
        if other.word != entry.word:
            yield _finding(
                entry,
                f"sounds the same as {other.word!r} ({other.where}): give them different like=, or keep one",
            )


def _in_base(
    entries: Sequence[Entry], lm: NgramModel, phones: PhoneSet, options: DecoderOptions
) -> Iterator[Finding]:
    """Lines that say what the base says, of words that are expected anyway."""
    from asr.decoder.vocabulary import WordScorer

    scorer = WordScorer(lm, options)
    bare = [e for e in entries if not e.like and not e.boost and e.weight == 1.0]
    base = {(e.word, e.phones): e for e in find_base({e.word for e in bare}, phones=phones)}
    added = {e.word: scorer(e, added=True) for e in entries}
    floor = scorer.unknown_score + scorer.share_of(sum(w.unknown or w.has_floor for w in added.values()))
    for entry in bare:
        there, placed = base.get((entry.word, entry.phones)), scorer(entry, added=True)
        expected = options.lm_weight * float(lm.log_prob[placed.lm_id])
        if there is not None and not (placed.has_floor and floor > expected):
            yield _finding(
                entry, f"is at {there.where} with these sounds: the line changes nothing, remove it"
            )


def _of_one(entry: Entry, known: frozenset[str]) -> Iterator[Finding]:
    """What shows in an entry by itself."""
    if len(entry.phones) <= SHORT:
        count = "one sound" if len(entry.phones) == 1 else f"{len(entry.phones)} sounds"
        yield _finding(
            entry,
            f"only {count}, found inside other words: add it together with the words around it, or boost=-1",
        )
    if entry.like and entry.like not in known:
        yield _finding(
            entry, f"like={entry.like} has no effect, the language model does not know it: take a common word"
        )
    if entry.boost > LARGE_BOOST:
        times = f"{math.exp(min(entry.boost, 100)):,.0f}" if entry.boost < 14 else "a million"
        yield _finding(
            entry,
            f"boost={entry.boost:g} makes it {times} times as likely, also where nobody said it: try 1 to 3",
        )
    if entry.boost < -2 * LARGE_BOOST:
        yield _finding(entry, f"boost={entry.boost:g} leaves it hardly a chance: try -1 to -3, or remove it")


@dataclass(frozen=True)
class Near:
    """A frequent word that sounds like an entry, how far away, and by how much the entry scores more alone.
    `loss` tells in how many of its uses the entry will be written, if that had so much less boost."""

    word: str
    distance: float
    lead: float
    loss: Callable[[float], Loss]


def _against_frequent(
    entries: Sequence[Entry], lm: NgramModel, frequent: int, phones: PhoneSet, options: DecoderOptions
) -> Iterator[Finding]:
    """Entries against the frequent words of the base lexicon: who takes whose place, and how easily."""
    from asr.contexts import Contexts, Rival
    from asr.decoder.vocabulary import WordScorer, build_vocabulary
    from asr.neighbours import Sorted, confusion_costs, find_neighbours

    unigrams = options.lm_weight * np.asarray(lm.log_prob[: len(lm.words)])
    guarded = {lm.words[i] for i in np.argsort(-unigrams, kind="stable")[:frequent]}
    base = find_base(guarded, phones=phones)
    if not base:
        return
    vocabulary = build_vocabulary(base, phones, lm, options)
    scores = vocabulary.score + unigrams[vocabulary.lm_id]
    among, costs = Sorted.of(vocabulary.tokens, vocabulary.offsets), confusion_costs(phones)
    scorer, contexts, least = WordScorer(lm, options), Contexts(lm, options.lm_weight), float(scores.min())
    for entry in entries:
        placed = scorer(entry, added=True)
        expected = 0.0 if placed.unknown else float(unigrams[placed.lm_id])
        mine = Rival(lm_id=placed.lm_id, score=placed.score)
        if placed.has_floor and scorer.unknown_score > expected:
            expected = scorer.unknown_score
            mine = Rival(lm_id=0, score=placed.score + expected)
        score = placed.score + expected
        bound = min(max(NEAR, score - least - LOST), FAR)
        numbers, distances = find_neighbours(np.array(phones.encode(entry.phones)), among, costs, bound)
        near: dict[str, Near] = {}
        for i, distance in zip(numbers.tolist(), distances.tolist(), strict=True):
            word = vocabulary.words[vocabulary.word[i]]
            if word in (entry.word, normalize(entry.word)):
                continue
            theirs = Rival(lm_id=int(vocabulary.lm_id[i]), score=float(vocabulary.score[i]))
            loss = cache(partial(contexts.loss, theirs, mine, distance))
            found = Near(word, distance, score - float(scores[i]), loss)
            near[word] = min(near.get(word, found), found, key=lambda n: n.distance)
        yield from _confusions(entry, list(near.values()))


def _confusions(entry: Entry, near: Sequence[Near]) -> Iterator[Finding]:
    """Words that sound the same, words that the entry will take the place of, words that will take its."""
    taken = [n for n in near if n.lead - n.distance > LOST and n.loss(0.0).share > WORTH]
    under = [n for n in near if n.distance == 0 and n not in taken]
    lost = [n for n in near if 0 < n.distance <= NEAR and -n.lead - n.distance > LOST]
    for sounds, some in (
        ("sounds the same as", [n for n in taken if n.distance == 0]),
        ("sounds like", [n for n in taken if n.distance > 0]),
    ):
        if some:
            yield _finding(entry, f"{sounds} {_named(some)} and will be written instead{_harm(entry, some)}")
    if under:
        yield _finding(
            entry, f"sounds the same as {_named(under)}, written unless the words around tell otherwise: "
            "give it a like= that tells",
        )  # fmt: skip
    if lost:
        yield _finding(
            entry, f"sounds almost like {_named(lost)}, which may be written instead: like= or boost=1 helps",
        )  # fmt: skip


def _harm(entry: Entry, taken: Sequence[Near]) -> str:
    """How often the worst off of the words will be lost, where it will not, and the boost that spares all."""
    worst = max(taken, key=lambda n: n.loss(0.0).share)
    loss = worst.loss(0.0)
    safe = f", not after {', '.join(map(repr, loss.safe[:_NAMED]))}" if loss.safe else ""
    named = f", {worst.word!r}" if len(taken) > 1 else ""
    drops = range(1, 100)
    drop = next((d for d in drops if all(n.loss(float(d)).share <= WORTH for n in taken)), drops[-1])
    return f"{named} in {loss.share:.0%} of its uses{safe}: boost={entry.boost - drop:g} would prevent it"


def _named(near: Sequence[Near]) -> str:
    ordered = sorted(near, key=lambda n: (n.distance - abs(n.lead), n.word))
    names = ", ".join(repr(n.word) for n in ordered[:_NAMED])
    return names + (f" and {len(near) - _NAMED} more" if len(near) > _NAMED else "")


def _in_order(findings: Sequence[Finding], files: Sequence[str | Path]) -> list[Finding]:
    """By file, line, and as they were found."""
    place = {str(Path(file)): i for i, file in enumerate(files)}

    def key(finding: Finding) -> tuple[int, int]:
        source, _, line = finding.where.rpartition(":")
        return place[source], int(line)

    return sorted(dict.fromkeys(findings), key=key)

"""How the words of a lexicon fare in transcribed recordings: heard or not, as what, and how they are said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from asr import audio, paths, words
from asr.audio import AudioError
from asr.lines import Sounds
from asr.manifest import Utterance
from asr.metrics import recall
from asr.rank import rank
from asr.spoken import find_span
from asr.text import normalize
from asr.transcribe import Failure, Recognizer
from asr.types import Transcript

LONGEST_S = 60.0  # of a recording in which words are looked for
WORTH = 4.0  # natural log: by how much a new pronunciation must explain the recordings better
_MOST = 30  # recordings of a word to learn its pronunciation from


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A pronunciation that explains `better` recordings better than those of the lexicon do, all in all by
    `gain` (natural log), what its distance from these costs taken off."""

    sounds: Sounds
    better: int
    gain: float


@dataclass(frozen=True, kw_only=True)
class WordReport:
    """`said` in the references, `found` of these, heard where nobody said it (`false`). `heard_as`: how often
    in which pronunciation, those of the lexicon first; the decoder lets a long new word lack one sound.
    `instead`: what was written in its place, how often."""

    word: str
    said: int
    found: int
    false: int
    heard_as: tuple[tuple[Sounds, int], ...]
    instead: tuple[tuple[str, int], ...]
    proposal: Proposal | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """Words that were said or heard, those most often missed first; `unsaid` are the others."""

    words: tuple[WordReport, ...]
    unsaid: tuple[str, ...]
    failures: tuple[Failure, ...]

    @property
    def said(self) -> int:
        return sum(word.said for word in self.words)

    @property
    def found(self) -> int:
        return sum(word.found for word in self.words)

    def as_dict(self) -> dict[str, object]:
        """For JSON: pronunciations are strings with a space between two phones."""
        return {
            "said": self.said,
            "found": self.found,
            "unsaid": list(self.unsaid),
            "words": [
                {
                    "word": w.word,
                    "said": w.said,
                    "found": w.found,
                    "false": w.false,
                    "heard_as": {" ".join(sounds): times for sounds, times in w.heard_as},
                    "instead": dict(w.instead),
                    "proposal": None
                    if w.proposal is None
                    else {**asdict(w.proposal), "sounds": " ".join(w.proposal.sounds)},
                }
                for w in self.words
            ],
        }


@dataclass(frozen=True, kw_only=True)
class _Occurrence:
    """A word where the reference has it: (frames, tokens) log-probs, and the words written there."""

    rows: np.ndarray
    heard: str


def report(
    utterances: Sequence[Utterance],
    *,
    file: str | Path | None = None,
    word_list: str | Path | None = None,
    model: str | Path | None = None,
    lm: str | Path | None = None,
    device: str = "auto",
    progress: Callable[[float], None] = lambda seconds: None,
) -> Report:
    """Transcribe recordings whose text is known and tell what became of the words of a lexicon file (the
    user's own by default), or of those of `word_list`, a word a line.

    Raises ValueError (LexiconError) where there are no words, no texts, or none of the words in the texts;
    OSError.
    """
    chosen = _words(file, word_list)
    usable = [utterance for utterance in utterances if normalize(utterance.text)]
    if not usable:
        raise ValueError("no recording in the manifest has a text to compare with")
    texts = [f" {normalize(utterance.text)} " for utterance in usable]
    if not any(f" {word} " in text for word in chosen for text in texts):
        raise ValueError(f"none of the {len(chosen)} words is in the texts of the manifest: {_some(chosen)}")
    recognizer = Recognizer.load(
        model=model, lexicon=[file] if file else [], lm=lm, device=device, user_lexicon=file is None
    )
    results = list(recognizer.stream([utterance.path for utterance in usable], progress))
    pairs = [(u, r) for u, r in zip(usable, results, strict=True) if isinstance(r, Transcript)]
    counts = recall([(normalize(u.text), normalize(r.text)) for u, r in pairs], chosen).by_word
    occurrences = _occurrences(recognizer, pairs, chosen)
    variants = recognizer.lexicon.pronunciations()
    heard = _heard_as(pairs)
    found = []
    for word, (said, right, false) in counts.items():
        known = variants.get(word, [])
        instead = Counter(o.heard for o in occurrences.get(word, []) if word not in o.heard.split())
        rows = [o.rows for o in occurrences.get(word, [])][:_MOST]
        found.append(
            WordReport(
                word=chosen[word],
                said=said,
                found=right,
                false=false,
                heard_as=tuple((dict.fromkeys(known, 0) | heard.get(word, {})).items()),
                instead=tuple(instead.most_common()),
                proposal=propose(rows, known, recognizer) if rows and known else None,
            )
        )
    found.sort(key=lambda w: (w.found - w.said, -w.false, w.word))
    return Report(
        words=tuple(found),
        unsaid=tuple(name for word, name in chosen.items() if word not in counts),
        failures=tuple(r for r in results if isinstance(r, Failure)),
    )


def propose(
    recordings: Sequence[np.ndarray], known: Sequence[Sounds], recognizer: Recognizer
) -> Proposal | None:
    """A pronunciation beside `known` that is worth having; `recordings` are (frames, tokens) log-probs of the
    word alone."""
    model = recognizer.model
    guesses = dict.fromkeys(known, (("lexicon",), 0.0))
    ranked = rank(recordings, guesses, model.phones, phone_lm=model.phone_lm)
    there = [c for c in ranked if c.sounds in known]
    before = np.max([c.fits for c in there], 0)
    # What the sounds of the lexicon cost anyway, so that another pronunciation only pays for its own.
    usual = max(c.score - sum(c.fits) for c in there)
    found = []
    for candidate in ranked:
        if candidate.sounds not in known:
            better = np.maximum(np.array(candidate.fits) - before, 0.0)
            gain = float(better.sum()) + (candidate.score - sum(candidate.fits) - usual)
            found.append(Proposal(sounds=candidate.sounds, better=int((better > 0.5).sum()), gain=gain))
    best = max(found, key=lambda p: p.gain, default=None)
    return best if best is not None and best.gain > WORTH else None


def _words(file: str | Path | None, word_list: str | Path | None) -> dict[str, str]:
    """Normal form -> as it is written. Raises ValueError where there are none, and OSError."""
    if word_list is not None:
        try:
            lines = Path(word_list).read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise ValueError(f"{word_list}: not UTF-8 text") from None
        names = [line.split("\t")[0].strip() for line in lines if not line.startswith("#")]
        source = Path(word_list)
    else:
        source = paths.user_lexicon() if file is None else Path(file)
        names = [entry.word for entry in words.entries(file)]
    found = {normalize(name): name for name in reversed(names) if normalize(name)}
    if not found:
        raise ValueError(f"{source}: no words in it to report on; name others with --words FILE")
    return found


def _occurrences(
    recognizer: Recognizer, pairs: Sequence[tuple[Utterance, Transcript]], chosen: dict[str, str]
) -> dict[str, list[_Occurrence]]:
    """Where the words are in the recordings, by laying the phones of each text over what is heard."""
    found: dict[str, list[_Occurrence]] = {}
    for utterance, transcript in pairs:
        units = _units(normalize(utterance.text).split(), chosen)
        if not any(unit in chosen for unit in units) or transcript.duration_s > LONGEST_S:
            continue
        try:
            emissions = recognizer.emissions(audio.load(utterance.path))
        except AudioError:
            continue
        for word, first, last in _places(units, emissions.log_probs, recognizer, chosen):
            start, end = first * emissions.frame_s, last * emissions.frame_s
            there = [w.text for w in transcript.words if start <= (w.start_s + w.end_s) / 2 <= end]
            rows = emissions.log_probs[max(0, first - 1) : last]
            heard = normalize(" ".join(there))
            found.setdefault(word, []).append(_Occurrence(rows=rows, heard=heard))
    return found


def _heard_as(pairs: Sequence[tuple[Utterance, Transcript]]) -> dict[str, Counter[Sounds]]:
    found: dict[str, Counter[Sounds]] = {}
    for _, transcript in pairs:
        for word in transcript.words:
            found.setdefault(normalize(word.text), Counter())[word.phones] += 1
    return found


def _units(text: Sequence[str], chosen: dict[str, str]) -> list[str]:
    """The words of a text; those that make up a chosen name of several words are one."""
    longest = max(len(word.split()) for word in chosen)
    units, at = [], 0
    while at < len(text):
        for length in range(min(longest, len(text) - at), 0, -1):
            unit = " ".join(text[at : at + length])
            if length == 1 or unit in chosen:
                units.append(unit)
                at += length
                break
    return units


def _places(
    units: Sequence[str], log_probs: np.ndarray, recognizer: Recognizer, chosen: dict[str, str]
) -> Iterator[tuple[str, int, int]]:
    """Each chosen word with its first frame and the one after its last, in its likeliest pronunciation."""
    from asr.g2p import pronounce

    phones, variants = recognizer.model.phones, recognizer.lexicon.pronunciations()
    ways = [variants.get(unit) or pronounce([unit], phones)[0] for unit in units]
    said = [phones.encode(way[0]) if way else [] for way in ways]
    for i, unit in enumerate(units):
        if unit not in chosen:
            continue
        before, after = (
            [t for tokens in said[:i] for t in tokens],
            [t for tokens in said[i + 1 :] for t in tokens],
        )
        tried = [(way, find_span(log_probs, (*before, *phones.encode(way), *after))) for way in ways[i]]
        spans = [(way, span) for way, span in tried if span is not None]
        if spans:
            way, span = max(spans, key=lambda pair: pair[1].score)
            first, last = len(before), len(before) + len(way)
            yield unit, span.frames[first], span.frames[last] if after else span.end


def _some(chosen: dict[str, str]) -> str:
    names = list(chosen.values())
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")

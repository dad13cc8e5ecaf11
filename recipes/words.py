"""How well words are learnt from recordings and spelt from sounds: the numbers of "Words" in RESULTS.md.

python recipes/words.py names                      # the invented names of tests/examples
python recipes/words.py speech --data ~/phonebook-data   # words of development sets, as if they were new
python recipes/words.py spelling                   # held-out words of the lexicon
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr import audio, paths
from asr.g2p import pronounce
from asr.learn import LANGUAGES, best_span, guesses_of
from asr.lexicon import Entry, read_entries
from asr.lines import Sounds
from asr.manifest import read_manifest
from asr.metrics import align, count_errors
from asr.neighbours import Sorted, confusion_costs, find_neighbours
from asr.phones import PhoneSet
from asr.rank import GUESS_WEIGHT, rank
from asr.spelling import ORDER, Spelling
from asr.spoken import find_span, trim
from asr.text import normalize
from asr.transcribe import Recognizer

EXAMPLES = Path(__file__).parents[1] / "tests" / "examples"
SETS = ("librispeech_native", "commonvoice", "kathleen", "ljspeech", "librispeech_dev")
NEW = "NEW"  # what a word is called that the recogniser is to take for new


@dataclass(frozen=True, kw_only=True)
class Said:
    """A word in a sentence: log-probs (frames, tokens) of the sentence, of the word in it, and of the word's
    samples alone; `sounds` is what was said."""

    word: str
    sounds: Sounds
    sentence: np.ndarray
    inside: np.ndarray
    alone: np.ndarray


def place(recognizer: Recognizer, path: Path, words: Sequence[Sounds], number: int, name: str) -> Said | None:
    """Word `number` of a recording whose words have these sounds."""
    model, waveform = recognizer.model, audio.load(path)
    rows = recognizer.emissions(waveform).log_probs
    tokens = tuple(model.phones.encode(tuple(phone for word in words for phone in word)))
    span = find_span(rows, tokens)
    if span is None:
        return None
    first = sum(len(word) for word in words[:number])
    after = first + len(words[number])
    start, end = span.frames[first], span.frames[after] if after < len(tokens) else span.end
    begin, stop = (int(frame * model.frame_s * audio.SAMPLE_RATE) for frame in (start, end))
    margin = audio.SAMPLE_RATE // 20
    alone = recognizer.emissions(waveform[max(0, begin - margin) : stop + margin]).log_probs
    cut = slice(*trim(alone))
    return Said(
        word=name, sounds=words[number], sentence=rows, inside=rows[max(0, start - 1) : end], alone=alone[cut]
    )


def distance(a: Sounds, b: Sounds, phones: PhoneSet) -> float:
    one = Sorted.of(np.array(phones.encode(b)), np.array([0, len(b)]))
    return float(find_neighbours(np.array(phones.encode(a)), one, confusion_costs(phones), 1e9)[1][0])


def names(recognizer: Recognizer) -> None:
    """Candidates for the names of the examples, and whether the other recording of each is understood."""
    phones, phone_lm, found = recognizer.model.phones, recognizer.model.phone_lm, []
    for table in ("zero_shot", "examples"):
        for line in (EXAMPLES / f"{table}.phones.tsv").read_text(encoding="utf-8").splitlines()[1:]:
            path, spoken = line.split("\t")
            name = Path(path).stem.removeprefix("name-").split("-")[0]
            words = [phones.parse(word) for word in spoken.split(" | ")]
            [true] = pronounce([name], phones)[0]
            if true in words:
                said = place(recognizer, EXAMPLES / path, words, words.index(true), name)
                assert said is not None
                found.append(said)
    guesses = {said.word: guesses_of(said.word, [], LANGUAGES, phones) for said in found}

    def searched(said: Said) -> np.ndarray:
        tokens = [tuple(phones.encode(sounds)) for sounds in guesses[said.word]]
        return said.sentence[slice(*best_span(said.sentence, tokens))]

    rows: list[tuple[str, Callable[[Said], np.ndarray]]] = [
        ("in its sentence", searched), ("cut out of the sound", lambda said: said.alone)
    ]  # fmt: skip
    for kind, of in rows:
        began = time.process_time()
        ranked = [rank([of(said)], guesses[said.word], phones, phone_lm=phone_lm) for said in found]
        seconds = (time.process_time() - began) / len(found)
        place_of_true = [
            [c.sounds for c in candidates].index(said.sounds) + 1
            for said, candidates in zip(found, ranked, strict=True)
        ]
        away = [distance(r[0].sounds, said.sounds, phones) for said, r in zip(found, ranked, strict=True)]
        print(
            f"{kind}: true sounds first {sum(p == 1 for p in place_of_true)}, among three "
            f"{sum(p <= 3 for p in place_of_true)} of {len(found)}; distance of the first: median "
            f"{np.median(away):.1f}, most {max(away):.1f}; {seconds:.2f} s a word"
        )
        print("    " + understood(recognizer, found, [candidates[0].sounds for candidates in ranked]))
    print("guessed from the spelling: " + understood(recognizer, found, [said.sounds for said in found]))


def understood(recognizer: Recognizer, found: Sequence[Said], sounds: Sequence[Sounds]) -> str:
    """How often names with two recordings are heard in one with the sounds that the other gave."""
    pairs: dict[str, list[tuple[Said, Sounds]]] = {}
    for said, learnt in zip(found, sounds, strict=True):
        pairs.setdefault(said.word, []).append((said, learnt))
    both = [pair for pair in pairs.values() if len(pair) == 2]
    heard = 0
    for first, second in ((0, 1), (1, 0)):
        entries = [Entry(word=pair[first][0].word, phones=pair[first][1]) for pair in both]
        heard += sum(hears(recognizer, pair[second][0], pair[second][0].word, entries) for pair in both)
    return f"understood in the other recording: {heard} of {2 * len(both)}"


def hears(recognizer: Recognizer, said: Said, word: str, entries: Sequence[Entry]) -> bool:
    return word in recognizer.decoder.decode(said.sentence[None], extra=entries)[0][0].words


def speech(recognizer: Recognizer, data: Path, weight: float) -> None:
    """Words of several development recordings, taken out of the lexicon and learnt from some of them."""
    phones, phone_lm = recognizer.model.phones, recognizer.model.phone_lm
    found = list(spoken_words(recognizer, data))
    for word in dict.fromkeys(said[0].word for said in found):
        recognizer.decoder.remove(word)
    for kind in (
        "as in the lexicon",
        "heard alone",
        "right guess",
        "guess half wrong",
        "guess of another word",
    ):
        for several in (False, True):
            heard = trials = 0
            for k, occurrences in enumerate(found):
                right, other = occurrences[0].sounds, found[k - 1][0].sounds
                guess = {
                    "right guess": right,
                    "guess half wrong": right[: len(right) // 2] + other[len(other) // 2 :],
                    "guess of another word": other,
                }.get(kind)
                guesses: Mapping = {guess: (("guess",), 0.0)} if guess else {}
                for taught, asked in lessons(occurrences, several):
                    sounds = right
                    if kind != "as in the lexicon":
                        taught_rows = [said.inside for said in taught]
                        sounds = rank(taught_rows, guesses, phones, weight, phone_lm)[0].sounds
                    heard += hears(recognizer, asked, NEW, [Entry(word=NEW, phones=sounds)])
                    trials += 1
            taught_by = "two recordings" if several else "one recording"
            print(f"{kind}, {taught_by}: {heard} of {trials} understood ({heard / trials:.0%})", flush=True)


def lessons(occurrences: Sequence[Said], several: bool) -> Iterable[tuple[list[Said], Said]]:
    """Recordings to learn from, and one to understand."""
    for asked in occurrences:
        others = [said for said in occurrences if said is not asked]
        if not several:
            yield from (([said], asked) for said in others)
        elif len(others) > 1:
            yield others, asked


def spoken_words(recognizer: Recognizer, data: Path, count: int = 80) -> Iterable[list[Said]]:
    """Words of six letters and more with two or three recordings each, the same ones in every run."""
    known = recognizer.lexicon.pronunciations()
    where = defaultdict(list)
    for utterance in (u for name in SETS for u in read_manifest(data / name / "dev.tsv")):
        words = normalize(utterance.text).split()
        if all(word in known for word in words):
            for word in {word for word in words if len(word) >= 6}:
                where[word].append((utterance.path, words))
    often = sorted(word for word in where if len(where[word]) > 1)
    for word in sorted(often, key=lambda w: hashlib.md5(w.encode()).digest())[:count]:
        placed = [
            place(recognizer, path, [known[w][0] for w in words], words.index(word), word)
            for path, words in where[word][:3]
        ]
        occurrences = [said for said in placed if said is not None]
        if len(occurrences) > 1:
            yield occurrences


def spelling(phones: PhoneSet, order: int) -> None:
    """Words whose hash says so are held out, one in twenty; a thousand of them are spelt."""
    entries = read_entries(paths.base_lexicon(), phones)[0]
    usable = [(e.word, phones.encode(e.phones)) for e in entries if e.word.isascii() and e.word.isalpha()]
    held = [int(hashlib.md5(word.encode()).hexdigest(), 16) % 20 == 0 for word, _ in usable]
    began = time.process_time()
    model = Spelling.train([pair for pair, out in zip(usable, held, strict=True) if not out], order)
    trained = time.process_time() - began
    asked = [pair for pair, out in zip(usable, held, strict=True) if out]
    asked = asked[:: max(1, len(asked) // 1000)]
    began = time.process_time()
    spelt = [(word, model.spell(tokens, 5)) for word, tokens in asked]
    seconds = time.process_time() - began
    errors = [count_errors(align(word, (found or [""])[0])) for word, found in spelt]
    exact = sum(found[:1] == [word] for word, found in spelt) / len(spelt)
    five = sum(word in found for word, found in spelt) / len(spelt)
    rate = sum(e.errors for e in errors) / sum(e.total for e in errors)
    print(
        f"{len(spelt)} words: {exact:.1%} exactly, {five:.1%} among five, letter error rate {rate:.1%}; "
        f"{trained:.1f} s to train, {1000 * seconds / len(spelt):.0f} ms a word"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("names", "speech", "spelling"))
    parser.add_argument("--data", type=Path, default=Path("~/phonebook-data"))
    parser.add_argument(
        "--guess-weight", type=float, default=GUESS_WEIGHT, help="of the spelling, for speech"
    )
    parser.add_argument("--order", type=int, default=ORDER, help="pairs that an n-gram spans, for spelling")
    options = parser.parse_args()
    if options.what == "spelling":
        spelling(PhoneSet.read(paths.PRETRAINED / "phones.txt"), options.order)
        return
    recognizer = Recognizer.load(user_lexicon=False, device="cpu")
    if options.what == "names":
        names(recognizer)
    else:
        speech(recognizer, options.data.expanduser(), options.guess_weight)


if __name__ == "__main__":
    main()

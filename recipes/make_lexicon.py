"""Make lexicon/en.txt: the words of the texts by frequency, then others that English has, each with its
pronunciations.

    python recipes/make_lexicon.py --data ~/phonebook-data --out lexicon/en.txt

Pronunciations come from three places: espeak-ng's reading of the word alone, its readings of the word inside
sentences (where "read", "live", "record" have two and "a", "to", "the" are reduced), and the table of reduced
function words below. Other texts beside the two, such as recipes/sentences.py writes, add the words that they
have five times (--min-count-others). No texts hold all words: those that wordfreq finds once in seven million
words of English follow (--min-frequency). Takes four minutes for three texts, beside other work.
"""

from __future__ import annotations

import lzma
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from asr.errors import one_line_errors
from asr.g2p import phonemize, pronounce
from asr.phones import PhoneSet
from asr.text import normalize
from asr.training.lm_text import TEXTS, texts_of
from asr.training.word_frequencies import word_frequencies

_WORD = re.compile(r"[a-z]+('[a-z]+)*")

# Weak forms of function words in connected speech (Cruttenden, Gimson's Pronunciation of English, 11.3), and
# pairs that speakers of American English share between them; espeak gives one of each.
WEAK_FORMS = """
a: ɐ, ə, eɪ | an: ə n, æ n | and: æ n d, ə n d, ə n, æ n | any: ɛ n i | are: ɑː ɹ, ɚ | as: æ z, ə z
at: æ t, ə t | be: b iː, b i | because: b ᵻ k ʌ z, b ᵻ k ɔː z, k ə z | been: b ɪ n, b ɛ n, b iː n
but: b ʌ t, b ə t | can: k æ n, k ə n | could: k ʊ d, k ə d | do: d uː, d ə | does: d ʌ z, d ə z
for: f ɔː ɹ, f ɚ | from: f ɹ ʌ m, f ɹ ə m | had: h æ d, h ə d, ə d | has: h æ z, h ə z, ə z
have: h æ v, h ə v, ə v | he: h iː, h i, i | her: h ɜː, h ɚ, ɚ | him: h ɪ m, ɪ m | his: h ɪ z, ɪ z
i'll: aɪ l | is: ɪ z | just: dʒ ʌ s t, dʒ ə s t | me: m iː, m i | must: m ʌ s t, m ə s t | my: m aɪ
of: ʌ v, ə v, ə | on: ɔ n, ɑː n | or: ɔː ɹ, ɚ | our: aʊ ɚ, ɑː ɹ | shall: ʃ æ l, ʃ ə l | she: ʃ iː, ʃ i
should: ʃ ʊ d, ʃ ə d | so: s oʊ | some: s ʌ m, s ə m | than: ð æ n, ð ə n | that: ð æ t, ð ə t
the: ð ə, ð ɪ, ð i | them: ð ɛ m, ð ə m | then: ð ɛ n, ð ə n | there: ð ɛ ɹ, ð ɚ | they're: ð ɛ ɹ
till: t ɪ l | to: t ə, t ʊ, t uː | us: ʌ s, ə s | was: w ʌ z, w ə z | we: w iː, w i | were: w ɜː, w ɚ
what: w ʌ t, w ɑː t | when: w ɛ n | will: w ɪ l, w ə l | with: w ɪ ð, w ɪ θ | would: w ʊ d, w ə d
you: j uː, j ə | you're: j ʊ ɹ, j ɚ | your: j ʊ ɹ, j ɔː ɹ, j ɚ | either: iː ð ɚ, aɪ ð ɚ
neither: n iː ð ɚ, n aɪ ð ɚ | often: ɔ f ə n, ɔ f t ə n | again: ɐ ɡ ɛ n, ɐ ɡ eɪ n
against: ɐ ɡ ɛ n s t, ɐ ɡ eɪ n s t | data: d eɪ ɾ ə, d æ ɾ ə | route: ɹ uː t, ɹ aʊ t
economic: iː k ə n ɑː m ɪ k, ɛ k ə n ɑː m ɪ k
"""


@dataclass(frozen=True, kw_only=True)
class Config:
    data: Path
    out: Path
    min_count: int = 1
    min_count_others: int = 5  # in the texts beside TEXTS
    min_frequency: float = 1.5e-7  # of words that the texts do not have
    sentences: int = 300_000  # read in context
    min_share: float = 0.05  # of a word's readings in context that a variant must have
    max_variants: int = 4


def sentences(texts: Iterable[Path]) -> Iterator[str]:
    for path in texts:
        with lzma.open(path, "rt", encoding="utf-8") as text:
            for line in text:
                yield line.strip().lower()


def count_words(texts: Iterable[Path], min_count: int) -> Counter[str]:
    """Of those that are in the normal form and occur so often."""
    counts: Counter[str] = Counter()
    for sentence in sentences(texts):
        counts.update(sentence.split())
    return Counter(
        {
            word: n
            for word, n in counts.items()
            if n >= min_count and _WORD.fullmatch(word) and normalize(word) == word
        }
    )


def by_frequency(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda word: (-counts[word], word))


def choose_words(config: Config) -> list[str]:
    """Each once: those of the two texts, of the others, and of wordfreq, the most frequent of each first."""
    first = [config.data / name for name in TEXTS]
    others = [path for path in texts_of(config.data) if path not in first]
    words = by_frequency(count_words(first, config.min_count))
    words += by_frequency(count_words(others, config.min_count_others))
    if config.min_frequency:
        words += word_frequencies(config.min_frequency)
    return list(dict.fromkeys(words))


def readings_in_context(config: Config, phones: PhoneSet) -> dict[str, Counter[tuple[str, ...]]]:
    """How espeak reads each word inside sentences. Sentences in which it joins words are left out."""
    rng = random.Random(1)
    texts = [config.data / name for name in TEXTS]
    total = sum(1 for _ in sentences(texts))
    chosen = [s for s in sentences(texts) if rng.random() < config.sentences / total]
    found: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for start in range(0, len(chosen), 20_000):
        batch = chosen[start : start + 20_000]
        for sentence, spoken in zip(batch, phonemize(batch), strict=True):
            words = sentence.split()
            readings = [part.strip() for part in spoken.split("|") if part.strip()]
            if len(words) == len(readings):
                for word, reading in zip(words, readings, strict=True):
                    found[word][phones.adapt(reading)] += 1
        print(f"\rread {start + len(batch):,} of {len(chosen):,} sentences", end="", file=sys.stderr)
    print(file=sys.stderr)
    return found


def weak_forms(phones: PhoneSet) -> dict[str, list[tuple[str, ...]]]:
    forms: dict[str, list[tuple[str, ...]]] = {}
    for item in WEAK_FORMS.strip().replace("\n", "|").split("|"):
        word, _, spoken = item.partition(":")
        forms[word.strip()] = [phones.parse(form) for form in spoken.split(",")]
    return forms


def main(config: Config) -> None:
    phones = PhoneSet.read(Path(__file__).parents[1] / "asr" / "pretrained" / "phones.txt")
    words = choose_words(config)
    alone = dict(zip(words, pronounce(words, phones), strict=True))
    context = readings_in_context(config, phones)
    weak = weak_forms(phones)
    lines = [
        "# English (US): word TAB phones. Made by recipes/make_lexicon.py; put your own words into user.txt."
    ]
    for word in words:
        seen = context.get(word, Counter())
        enough = max(3, config.min_share * seen.total())
        usual = [reading for reading, n in seen.most_common(config.max_variants) if n >= enough and reading]
        variants = dict.fromkeys([*weak.get(word, []), *usual, *alone[word]])
        lines += [f"{word}\t{' '.join(variant)}" for variant in variants if variant]
    config.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{config.out}: {len(words):,} words, {len(lines) - 1:,} pronunciations")


def cli(
    data: Annotated[Path, typer.Option(help="the data folder, with text/")],
    out: Annotated[Path, typer.Option(help="the lexicon to write")] = Path("lexicon/en.txt"),
    min_count: Annotated[int, typer.Option(help="leave out words that occur less often")] = Config.min_count,
    min_count_others: Annotated[
        int, typer.Option(help="leave out words that other texts in text/ have less often")
    ] = Config.min_count_others,
    min_frequency: Annotated[
        float, typer.Option(help="how frequent words are that come from wordfreq; 0: none of them")
    ] = Config.min_frequency,
    sentences: Annotated[int, typer.Option(help="how many sentences to read in context")] = Config.sentences,
) -> None:
    """Make the base lexicon from the texts."""
    with one_line_errors():
        main(
            Config(
                data=data, out=out, min_count=min_count, min_count_others=min_count_others,
                min_frequency=min_frequency, sentences=sentences,
            )
        )  # fmt: skip


if __name__ == "__main__":
    typer.run(cli)

"""How common the words of English are, also those that our texts do not have.

From wordfreq (Speer 2022), which counted books, subtitles, Wikipedia, news, Reddit and Twitter.
"""

from __future__ import annotations

import re

from asr.text import normalize

# What is spoken as a word: a vowel letter, three letters or more. Shorter ones are abbreviations mostly.
_WORD = re.compile(r"(?=.*[aeiouy])(?=.{3})[a-z]+('[a-z]+)*")


def word_frequencies(min_frequency: float) -> dict[str, float]:
    """The words at least so frequent, 1e-7 is one in ten million, the most frequent first. Raises ValueError
    where wordfreq is not installed."""
    try:
        from wordfreq import get_frequency_dict
    except ImportError:
        raise ValueError("frequencies of words need wordfreq: pip install 'phonebook-asr[train]'") from None
    return words_among(get_frequency_dict("en", "large"), min_frequency)


def words_among(counted: dict[str, float], min_frequency: float) -> dict[str, float]:
    """Those of the words and their frequencies that our lexicon would write so and that are at least so
    frequent, the most frequent first: `didnt` is no word, for `didn't` is more frequent."""
    ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    words: dict[str, float] = {}
    without_apostrophe: set[str] = set()
    for word, frequency in ranked:
        if frequency < min_frequency:
            break
        if word in without_apostrophe or not _WORD.fullmatch(word) or normalize(word) != word:
            continue
        words[word] = frequency
        if "'" in word:
            without_apostrophe.add(word.replace("'", ""))
    return words

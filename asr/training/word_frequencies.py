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
    """Those that are words as our lexicon writes them."""
    ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return {
        word: frequency
        for word, frequency in ranked
        if frequency >= min_frequency and _WORD.fullmatch(word) and normalize(word) == word
    }

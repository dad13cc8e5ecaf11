"""Spelling to pronunciations, through phonemizer and the espeak-ng that espeakng-loader brings along."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from asr.phones import PhoneSet

if TYPE_CHECKING:
    from phonemizer.backend import EspeakBackend

_WORD_END = "|"
_DOUBLE_R = re.compile(r"[ɹr](\s+[ɹr])+(?!\S)")
# espeak marks a switch of language inside a text: (fr)...(en-us).
_LANGUAGE_SWITCH = re.compile(r"\([a-z-]+\)")


def pronounce(words: Sequence[str], phones: PhoneSet, language: str = "en-us") -> list[list[tuple[str, ...]]]:
    """For each word its pronunciations in `phones`, the likeliest first; none where espeak stays silent.

    `language` is any espeak-ng voice; sounds that `phones` lacks become their nearest phones.
    Raises ValueError for an unknown language.
    """
    texts = [_speakable(word) for word in words]
    results: list[list[tuple[str, ...]]] = []
    for spoken in phonemize(texts, language):
        if not language.startswith("en"):
            # Elsewhere espeak's tap is an r; only in American English does it stand for a t or d.
            spoken = spoken.replace("ɾ", "ɹ")
        sounds = phones.adapt(spoken.replace(_WORD_END, " "))
        results.append([sounds] if sounds else [])
    return results


def phonemize(texts: Sequence[str], language: str = "en-us", stress: bool = False) -> list[str]:
    """espeak-ng's reading of each text: phones between spaces, words ended by ' | '.

    With `stress` the marks ˈ and ˌ stand before the stressed vowels. espeak joins some words ("of the"),
    so the number of words may be smaller than in the text.
    """
    from phonemizer.separator import Separator

    separator = Separator(phone=" ", word=f" {_WORD_END} ", syllable="")
    backend = _backend(language, stress)
    # The backend drops empty texts from its answer: keep the places.
    kept = [i for i, text in enumerate(texts) if text.strip()]
    spoken = backend.phonemize([texts[i] for i in kept], separator=separator, strip=True, njobs=1)
    results = [""] * len(texts)
    for i, phones in zip(kept, spoken, strict=True):
        # espeak writes the r of "clara" twice, as the end of one vowel and the begin of the next, and that of
        # "marquis" with two symbols.
        results[i] = _DOUBLE_R.sub("ɹ", _LANGUAGE_SWITCH.sub(" ", phones))
    return results


def _speakable(word: str) -> str:
    """A word the way espeak reads it as one: "O'Neil" as it is, "e-mail" as two, "JSON" as a word."""
    word = word.replace("’", "'").replace("ʼ", "'").replace("-", " ").replace("_", " ")
    # Capitals make espeak spell: keep them only where the word has no vowel that could be read.
    has_vowel = any(c in "aeiouyäöüáéíóúàèìòùâêîôûåæø" for c in word.lower())
    return word.lower() if has_vowel or not word.isupper() else word


@functools.lru_cache(maxsize=8)
def _backend(language: str, stress: bool = False) -> EspeakBackend:
    import espeakng_loader
    from phonemizer.backend import EspeakBackend
    from phonemizer.backend.espeak.wrapper import EspeakWrapper

    EspeakWrapper.set_library(espeakng_loader.get_library_path())
    EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
    logger = logging.getLogger("asr.g2p")
    logger.setLevel(logging.ERROR)
    try:
        return EspeakBackend(language, with_stress=stress, language_switch="keep-flags", logger=logger)
    except RuntimeError:
        raise ValueError(
            f"espeak-ng has no language {language!r}; try en-us, en-gb, de, fr-fr, es, it, pt-br, ga, cmn, ja"
        ) from None

"""Where the project's own files lie, in a checkout and in an installed wheel."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).parent
PRETRAINED = _PACKAGE / "pretrained"


def lexicon_folder() -> Path:
    """lexicon/ of the checkout, or the copy that a wheel brings."""
    checkout = _PACKAGE.parent / "lexicon"
    return checkout if (checkout / "en.txt").is_file() else _PACKAGE / "data" / "lexicon"


def base_lexicon() -> Path:
    return lexicon_folder() / "en.txt"


def user_lexicon() -> Path:
    """The user's own words: lexicon/user.txt of a checkout, else ~/.config/phonebook/user.txt."""
    if lexicon_folder().parent == _PACKAGE.parent:
        return lexicon_folder() / "user.txt"
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return config / "phonebook" / "user.txt"


def language_model() -> Path:
    return PRETRAINED / "lm.ngrams.xz"


def neural_lm() -> Path:
    return PRETRAINED / "neural_lm"


def cache_folder() -> Path:
    """Where compiled lexicons and language models are kept; safe to delete."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "phonebook"

"""What the tests share: where data lies, and things too dear to be made twice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asr import paths
from asr.phones import PhoneSet

if TYPE_CHECKING:
    from asr.transcribe import Recognizer

REPOSITORY = Path(__file__).parents[1]


def _shared(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable) or REPOSITORY.parent / "shared" / default)
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: set {variable} to the folder")
    return folder


@pytest.fixture(scope="session")
def data() -> Path:
    """The speech data: folders with audio and manifests."""
    return _shared("PHONEBOOK_DATA", "data")


@pytest.fixture(scope="session")
def bench() -> Path:
    """The decoder benchmark: log-probs, lexicon and language model."""
    return _shared("PHONEBOOK_BENCH", "bench")


@pytest.fixture(scope="session")
def examples() -> Path:
    """The recordings that come with the project."""
    return Path(__file__).parent / "examples"


@pytest.fixture(scope="session")
def phones() -> PhoneSet:
    return PhoneSet.read(paths.PRETRAINED / "phones.txt")


@pytest.fixture(scope="session")
def recognizer() -> Recognizer:
    """The embedded model with the base lexicon. Shared: who adds words makes a Recognizer of their own."""
    from asr.transcribe import Recognizer

    return Recognizer.load(user_lexicon=False, device="cpu")

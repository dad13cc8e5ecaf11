"""The user's own words in a running recogniser: files that are read again when they change."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from asr.decoder import Decoder
from asr.lexicon import Entry, G2p, Lexicon
from asr.phones import PhoneSet


@contextmanager
def collector_paused() -> Iterator[None]:
    """Without the garbage collector, which would look through a growing lexicon again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class OwnWords:
    """Keeps a decoder's added words equal to what lexicon files hold. Many threads may ask."""

    def __init__(
        self, decoder: Decoder, files: Sequence[Path], fixed: Lexicon, phones: PhoneSet, g2p: G2p
    ) -> None:
        """`fixed`: words beside those of the files. Raises LexiconError and OSError as Lexicon.read does."""
        self._decoder, self._files, self._fixed = decoder, tuple(files), fixed
        self._phones, self._g2p = phones, _remembering(g2p)
        self._contents: list[bytes] | None = None
        self._there: dict[tuple[str, tuple[str, ...]], Entry] = {}
        self._lock = threading.Lock()
        self.lexicon = Lexicon(())
        self.refresh()

    def refresh(self) -> None:
        """Read the files again if their content is another one. A file that is gone holds no words.

        Raises LexiconError for bad lines; the words stay as they were then.
        """
        with self._lock, collector_paused():
            there = [file for file in self._files if file.is_file()]
            contents = [file.read_bytes() for file in there]
            if contents == self._contents:
                return
            lexicon = Lexicon.read(there, self._phones, self._g2p) + self._fixed
            wanted = {(entry.word, entry.phones): entry for entry in lexicon.entries}
            for key, entry in self._there.items():
                if key not in wanted:
                    self._decoder.take_back(entry)
            for key, entry in wanted.items():
                if key not in self._there or _scores(self._there[key]) != _scores(entry):
                    self._decoder.add_entry(entry)
            self._there, self._contents = wanted, contents
            self.lexicon = Lexicon(lexicon.entries, lexicon.notes + self._without_effect(lexicon))

    def _without_effect(self, lexicon: Lexicon) -> tuple[str, ...]:
        likes = {entry.like: entry.where for entry in reversed(lexicon.entries) if entry.like}
        return tuple(
            f"{where}: like={like} has no effect: the language model does not know {like!r}"
            for like, where in likes.items()
            if not self._decoder.knows(like)
        )


def _remembering(g2p: G2p) -> G2p:
    """Guesses each word once: an edit of a long list then costs what the edit does."""
    known: dict[str, list[tuple[str, ...]]] = {}

    def pronounce(words: Sequence[str]) -> list[list[tuple[str, ...]]]:
        new = [word for word in dict.fromkeys(words) if word not in known]
        known.update(zip(new, g2p(new) if new else (), strict=True))
        return [known[word] for word in words]

    return pronounce


def _scores(entry: Entry) -> tuple[float, str, float]:
    """What a line changes beside its place in the file."""
    return entry.weight, entry.like, entry.boost

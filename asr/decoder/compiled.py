"""A lexicon and a language model made ready for the search, kept on disk by content and mapped into
memory."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from asr.decoder.graph import Graph, build_graph
from asr.decoder.ngram import NgramModel, flat_model
from asr.decoder.options import DecoderOptions
from asr.decoder.vocabulary import Vocabulary, build_vocabulary
from asr.lexicon import Lexicon
from asr.paths import cache_folder
from asr.phones import PhoneSet

_FORMAT = 5
_KEPT = 24  # graphs in the cache; each new one beyond these takes the place of that longest unused


@dataclass(frozen=True)
class Compiled:
    """What never changes while a decoder runs. `end_scores` float32 (histories,): of the sentence end after
    each."""

    vocabulary: Vocabulary
    graph: Graph
    end_scores: np.ndarray

    @classmethod
    def build(
        cls, lexicon: Lexicon, lm: NgramModel | None, phones: PhoneSet, options: DecoderOptions
    ) -> Compiled:
        """Raises UnknownPhone and ValueError as Vocabulary does."""
        vocabulary = build_vocabulary(lexicon.entries, phones, lm, options)
        graph = build_graph(vocabulary, lm or flat_model(), len(phones), options.lm_weight)
        end_scores = np.zeros(len(graph.backoffs), np.float32)
        if lm is not None and lm.end > 0:
            end_scores = lm.scores_after(graph.states, lm.end) * np.float32(options.lm_weight)
        return cls(vocabulary, graph, end_scores)

    @classmethod
    def cached(
        cls,
        key: str,
        read: Callable[[], Lexicon],
        lm: NgramModel | None,
        phones: PhoneSet,
        options: DecoderOptions,
    ) -> Compiled:
        """The same from the cache if it was built before for this key, these phones and options.

        `key`: what tells the contents of lexicon and language model; `read` is called only to build."""
        scores = (
            options.lm_weight,
            options.word_score,
            options.unknown_word_score,
            options.unknown_words,
            options.missing_phone_score,
        )
        identity = json.dumps([_FORMAT, key, phones.symbols, scores]).encode()
        folder = cache_folder() / f"graph-{hashlib.sha256(identity).hexdigest()[:32]}"
        if not folder.is_dir():
            compiled = cls.build(read(), lm, phones, options)
            try:
                compiled._store(folder)
            except OSError:
                return compiled  # a read-only home only costs time
        return cls._load(folder)

    def _store(self, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            new = Path(temporary) / "graph"
            new.mkdir()
            numbers = {}
            for part in (self.vocabulary, self.graph):
                for field in dataclasses.fields(part):
                    value = getattr(part, field.name)
                    if isinstance(value, np.ndarray):
                        np.save(new / f"{field.name}.npy", value)
                    elif field.name != "words":
                        numbers[field.name] = value
            np.save(new / "end_scores.npy", self.end_scores)
            (new / "words.txt").write_text("\n".join(self.vocabulary.words), encoding="utf-8")
            (new / "numbers.json").write_text(json.dumps(numbers), encoding="utf-8")
            if not folder.exists():
                os.replace(new, folder)
        _forget_old(folder.parent)

    @classmethod
    def _load(cls, folder: Path) -> Compiled:
        with contextlib.suppress(OSError):  # a cache that may only be read
            os.utime(folder)
        values = json.loads((folder / "numbers.json").read_text(encoding="utf-8"))
        values |= {file.stem: np.asarray(np.load(file, mmap_mode="r")) for file in folder.glob("*.npy")}
        values["words"] = tuple((folder / "words.txt").read_text(encoding="utf-8").split("\n"))
        return cls(_made(Vocabulary, values), _made(Graph, values), values["end_scores"])


def _forget_old(cache: Path) -> None:
    """Who has a graph mapped keeps it."""
    folders = sorted(cache.glob("graph-*"), key=lambda folder: -folder.stat().st_mtime)
    for folder in folders[_KEPT:]:
        shutil.rmtree(folder, ignore_errors=True)


_Part = TypeVar("_Part", Vocabulary, Graph)


def _made(kind: type[_Part], values: dict[str, Any]) -> _Part:
    return kind(**{field.name: values[field.name] for field in dataclasses.fields(kind)})

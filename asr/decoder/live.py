"""The vocabulary that a decoder searches now: compiled words, less removed ones, and added words."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from asr.decoder.added import Added, AddedView, AddedWords
from asr.decoder.arcs import GraphView
from asr.decoder.compiled import Compiled
from asr.decoder.ngram import NgramModel
from asr.decoder.options import DecoderOptions
from asr.decoder.unknown import phone_bigram
from asr.decoder.vocabulary import WordScorer, check_length
from asr.lexicon import Entry
from asr.phones import PhoneSet


class View:
    """One version: the addresses for the kernels, and the arrays to keep alive meanwhile."""

    def __init__(
        self,
        compiled: Compiled,
        removed: np.ndarray,
        added: AddedView,
        entries: Sequence[Added],
        loop: np.ndarray | None,
    ) -> None:
        self.removed, self.added = removed, added
        self._compiled, self._entries, self.loop = compiled, entries, loop
        graph, vocabulary = compiled.graph, compiled.vocabulary
        self.graph = GraphView(
            nodes=graph.nodes.ctypes.data,
            words=graph.nodes.shape[1] - 1,
            arcs=graph.arcs.ctypes.data,
            ends=graph.ends.ctypes.data,
            chains=graph.chains.ctypes.data,
            backoffs=graph.backoffs.ctypes.data,
            tokens=vocabulary.tokens.ctypes.data,
            offsets=vocabulary.offsets.ctypes.data,
            word_of=vocabulary.word.ctypes.data,
            removed=removed.ctypes.data,
            heads=added.heads.ctypes.data,
            links=added.links.ctypes.data,
            groups=added.groups.ctypes.data,
            num_groups=len(added.groups),
            added_nodes=added.nodes.ctypes.data,
            added_ends=added.ends.ctypes.data,
            version=added.version,
            loop=0 if loop is None else loop.ctypes.data,
            bonus=max(graph.bonus, added.bonus),
            root_best=graph.root_best.ctypes.data,
        )

    def said(self, pronunciation: int) -> Added:
        """A pronunciation by its number, compiled or added."""
        vocabulary, i = self._compiled.vocabulary, pronunciation
        if i >= len(vocabulary):
            added = self._entries[i - len(vocabulary)]
            return replace(added, score=added.score + self.added.share) if added.unknown else added
        return Added(
            word=vocabulary.words[vocabulary.word[i]],
            word_id=int(vocabulary.word[i]),
            tokens=vocabulary.tokens[vocabulary.offsets[i] : vocabulary.offsets[i + 1]],
            lm_id=int(vocabulary.lm_id[i]),
            score=float(vocabulary.score[i]),
            unknown=bool(vocabulary.unknown[i]),
        )


class LiveVocabulary:
    """Words come and go while others decode: `view` is always whole, and what it names does not change."""

    def __init__(
        self, compiled: Compiled, lm: NgramModel | None, phones: PhoneSet, options: DecoderOptions
    ) -> None:
        self._compiled, self._vocabulary, self._phones = compiled, compiled.vocabulary, phones
        self.scorer = WordScorer(lm, options)
        unknown = compiled.vocabulary.word[compiled.vocabulary.unknown] if lm is not None else ()
        self._added = AddedWords(
            compiled.graph, len(compiled.vocabulary), self.scorer.share_of, frozenset(map(int, unknown))
        )
        # By pronunciation; replaced, never written, once a view names it.
        self._removed = np.zeros(len(compiled.vocabulary), np.int8)
        self._loop = (
            None if options.unknown == "off" else phone_bigram(compiled.vocabulary, options, len(phones))
        )
        self._lock = threading.Lock()
        self.view = self._new_view()

    def add(self, entry: Entry) -> None:
        """A pronunciation that is there already takes the new entry's score."""
        forms = self._scored(entry)
        with self._lock:
            self._mark(self._compiled_as(forms[0]), 1)
            self._added.add(forms)
            self.view = self._new_view()

    def remove(self, word: str) -> None:
        with self._lock:
            word_id = self._word_ids.get(word, -1)
            was_added = self._added.remove(word_id)
            compiled = [i for i in self._pronunciations(word_id) if not self._removed[i]]
            if not was_added and not compiled:
                raise ValueError(f"{word!r} is not in the vocabulary")
            self._mark(compiled, 1)
            self.view = self._new_view()

    def take_back(self, entry: Entry) -> None:
        """Undo `add` of the same word and phones: what was compiled is heard again as it was."""
        added = self._scored(entry)[0]
        with self._lock:
            self._added.remove(added.word_id, added.tokens)
            self._mark(self._compiled_as(added), 0)
            self.view = self._new_view()

    def view_with(self, entries: Sequence[Entry]) -> View:
        """A view with more words, which nobody else sees."""
        if not entries:
            return self.view
        scored = [self._scored(entry) for entry in entries]
        with self._lock:
            mine, removed = self._added.copy(), self._removed.copy()
            for forms in scored:
                removed[self._compiled_as(forms[0])] = 1
        for forms in scored:
            mine.add(forms)
        return View(self._compiled, removed, mine.view(), mine.entries, self._loop)

    def _scored(self, entry: Entry) -> list[Added]:
        """The pronunciation, and those that are a phone shorter where it may lack one."""
        tokens = tuple(self._phones.encode(entry.phones))
        check_length(entry, len(tokens))
        scored = self.scorer(entry)
        with self._lock:
            word_id = self._word_ids.setdefault(entry.word, len(self._word_ids))
        return [
            Added(entry.word, word_id, np.array(form, np.int16), scored.lm_id, score.score, scored.unknown)
            for form, score in {tokens: scored, **scored.with_a_phone_missing(tokens)}.items()
        ]

    @functools.cached_property
    def _word_ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self._vocabulary.words)}

    def _pronunciations(self, word_id: int) -> list[int]:
        """The compiled ones of a word."""
        if not 0 <= word_id < len(self._vocabulary.words):
            return []
        return np.flatnonzero(self._vocabulary.word == word_id).tolist()

    def _compiled_as(self, added: Added) -> list[int]:
        """Those of the word that are the same phones, or these less one."""
        vocabulary, tokens = self._vocabulary, added.tokens.tolist()
        same = self._pronunciations(added.word_id)
        return [i for i in same if vocabulary.tokens_of(vocabulary.full[i]) == tokens]

    def _mark(self, pronunciations: Sequence[int], value: int) -> None:
        if pronunciations:
            self._removed = self._removed.copy()
            self._removed[list(pronunciations)] = value

    def _new_view(self) -> View:
        return View(self._compiled, self._removed, self._added.view(), self._added.entries, self._loop)

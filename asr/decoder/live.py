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
from asr.decoder.vocabulary import WordScore, WordScorer, check_length
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
        floor: float,
    ) -> None:
        """`floor`: of words that have one, without the share of each."""
        self.removed, self.added, self._floor = removed, added, floor
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
        said, share = self._said(pronunciation), self.added.share
        if said.lm_id > 0 and self.added.has_floor(said.word_id):
            return replace(said, floor=self._floor + share)
        if said.unknown and pronunciation >= len(self._compiled.vocabulary):
            return replace(said, score=said.score + share)
        return said

    def _said(self, pronunciation: int) -> Added:
        vocabulary, i = self._compiled.vocabulary, pronunciation
        if i >= len(vocabulary):
            return self._entries[i - len(vocabulary)]
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
        forms, same, replaced = self._placed(entry)
        with self._lock:
            self._mark(same, replaced)
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
        forms, same, _ = self._placed(entry)
        with self._lock:
            self._added.remove(forms[0].word_id, forms[0].tokens)
            self._mark(same, 0)
            self.view = self._new_view()

    def view_with(self, entries: Sequence[Entry]) -> View:
        """A view with more words, which nobody else sees."""
        if not entries:
            return self.view
        placed = [self._placed(entry) for entry in entries]
        with self._lock:
            mine, removed = self._added.copy(), self._removed.copy()
        for forms, same, replaced in placed:
            removed[same] = replaced
            mine.add(forms)
        return self._new_view(mine, removed)

    def _placed(self, entry: Entry) -> tuple[list[Added], list[int], bool]:
        """The pronunciation, and those that are a phone shorter where it may lack one. Which compiled ones of
        the word are the same phones, or these less one, and whether what is added takes their place."""
        tokens = tuple(self._phones.encode(entry.phones))
        check_length(entry, len(tokens))
        scored, floor = self.scorer(entry, added=True), -np.inf
        with self._lock:
            word_id = self._word_ids.setdefault(entry.word, len(self._word_ids))
        same, stays = self._compiled_as(word_id, tokens), False
        if scored.has_floor:
            floor = self.scorer.unknown_score
            # Words that stand where they stood need not be looked for twice.
            stays = self._scores_as_compiled(scored, same)
        forms = [
            Added(
                entry.word, word_id, np.array(form, np.int16), scored.lm_id, score.score, scored.unknown,
                floor, is_only_there=stays or (scored.has_floor and form != tokens),
            )
            for form, score in {tokens: scored, **scored.with_a_phone_missing(tokens)}.items()
        ]  # fmt: skip
        return forms, same, not stays

    @functools.cached_property
    def _word_ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self._vocabulary.words)}

    def _pronunciations(self, word_id: int) -> list[int]:
        """The compiled ones of a word."""
        if not 0 <= word_id < len(self._vocabulary.words):
            return []
        return np.flatnonzero(self._vocabulary.word == word_id).tolist()

    def _compiled_as(self, word_id: int, tokens: tuple[int, ...]) -> list[int]:
        """Those of the word that are the same phones, or these less one."""
        vocabulary, same = self._vocabulary, self._pronunciations(word_id)
        return [i for i in same if vocabulary.tokens_of(vocabulary.full[i]) == list(tokens)]

    def _scores_as_compiled(self, known: WordScore, same: Sequence[int]) -> bool:
        vocabulary, score = self._vocabulary, np.float32(known.score)
        return bool(same) and all(
            vocabulary.lm_id[i] == known.lm_id and vocabulary.score[i] == score for i in same
        )

    def _mark(self, pronunciations: Sequence[int], value: int) -> None:
        if pronunciations:
            self._removed = self._removed.copy()
            self._removed[list(pronunciations)] = value

    def _new_view(self, added: AddedWords | None = None, removed: np.ndarray | None = None) -> View:
        added = self._added if added is None else added
        removed = self._removed if removed is None else removed
        floor = self.scorer.unknown_score
        return View(self._compiled, removed, added.view(), added.entries, self._loop, floor)

"""Sentences as pieces of words, in batches of like length: what a neural language model is trained on."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from asr.model.neural_lm import SENTENCE

if TYPE_CHECKING:
    from tokenizers import Tokenizer

IGNORED = -1  # a target that is padding


@dataclass(frozen=True)
class Corpus:
    """`pieces` uint16 of all sentences, one behind the other; sentence i begins at `offsets[i]`, int64."""

    pieces: np.ndarray
    offsets: np.ndarray
    num_words: int

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def followed_by(self, other: Corpus, times: int) -> Corpus:
        """And so many times the other's sentences."""
        lengths = np.concatenate([self.lengths, np.tile(other.lengths, times)])
        return Corpus(
            np.concatenate([self.pieces, np.tile(other.pieces, times)]),
            np.concatenate([[0], np.cumsum(lengths)]),
            self.num_words + times * other.num_words,
        )

    def batch(self, sentences: np.ndarray) -> tuple[Tensor, Tensor]:
        """Inputs and targets int64 (sentences, longest + 1): each piece is to be told from those before it,
        the end from all; targets beyond it are IGNORED."""
        longest = int(self.lengths[sentences].max())
        inputs = np.full((len(sentences), longest + 1), SENTENCE, np.int64)
        targets = np.full((len(sentences), longest + 1), IGNORED, np.int64)
        for row, i in enumerate(sentences):
            pieces = self.pieces[self.offsets[i] : self.offsets[i + 1]]
            inputs[row, 1 : len(pieces) + 1] = targets[row, : len(pieces)] = pieces
            targets[row, len(pieces)] = SENTENCE
        return torch.from_numpy(inputs), torch.from_numpy(targets)


def train_tokenizer(sentences: Iterable[str], pieces: int) -> Tokenizer:
    """Byte-pair encoding (Sennrich et al. 2016) of words in that many pieces, letters and SENTENCE among
    them. Raises ValueError for more than 65,536 pieces."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    if pieces > 1 << 16:
        raise ValueError(f"{pieces} pieces: at most 65536")
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    special = ["<s>", "<unk>"]
    assert special.index("<s>") == SENTENCE
    trainer = trainers.BpeTrainer(vocab_size=pieces, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(sentences, trainer)
    return tokenizer


def encode(sentences: Iterable[str], tokenizer: Tokenizer) -> Corpus:
    pieces_of: dict[str, list[int]] = {}
    pieces, offsets, num_words = array("H"), [0], 0
    for sentence in sentences:
        for word in sentence.split():
            if word not in pieces_of:
                pieces_of[word] = tokenizer.encode(word).ids
            pieces.extend(pieces_of[word])
            num_words += 1
        offsets.append(len(pieces))
    return Corpus(np.array(pieces, np.uint16), np.array(offsets, np.int64), num_words)


@dataclass(frozen=True)
class SentenceBatches:
    """Batches of at most `size` pieces, or of one sentence, from the sentences of at most `longest`, in an
    order that `seed` and epoch decide."""

    corpus: Corpus
    size: int
    longest: int
    seed: int

    @property
    def usable(self) -> np.ndarray:
        lengths = self.corpus.lengths
        return np.flatnonzero((lengths > 0) & (lengths <= self.longest))

    @property
    def num_targets(self) -> int:
        """Of an epoch: the pieces and an end for each sentence."""
        return int((self.corpus.lengths[self.usable] + 1).sum())

    def epoch(self, number: int, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Without the first `skip` batches."""
        rng = np.random.default_rng([self.seed, number])
        usable, lengths = self.usable, self.corpus.lengths
        # Like lengths go together, among equal ones others in each epoch; the longest of a batch comes first.
        order = usable[np.argsort(rng.uniform(0, 1, len(usable)) - lengths[usable], kind="stable")]
        groups, begin = [], 0
        while begin < len(order):
            end = begin + max(1, self.size // (int(lengths[order[begin]]) + 1))
            groups.append(order[begin:end])
            begin = end
        for k in rng.permutation(len(groups))[skip:]:
            yield self.corpus.batch(groups[k])

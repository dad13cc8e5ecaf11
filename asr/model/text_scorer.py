"""How likely texts are under a neural language model, many at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from asr.model.arithmetic import autocast
from asr.model.neural_lm import SENTENCE, NeuralLM, load_neural_lm

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NODES = 256  # of a tree of texts: products of more are no faster, and attention takes the square of it


class TextScorer:
    """Hypotheses of one utterance are mostly alike: the network sees a tree of their beginnings, each piece
    once, and lets it see its own ancestors alone.

    Where the hardware multiplies bf16 it does so here, and a text scores a little differently in other
    company (0.03 at most where that was looked at).
    """

    def __init__(self, network: NeuralLM, tokenizer: Tokenizer, device: torch.device) -> None:
        self._network = network.to(device).eval()
        self._tokenizer, self._device = tokenizer, device
        self._pieces: dict[str, tuple[int, ...]] = {}

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> TextScorer:
        """Raises ValueError as `load_neural_lm`."""
        return cls(*load_neural_lm(folder), torch.device(device))

    def log_probs(self, texts: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """For each text, words in their normal form, the log-probability (natural log) of each word and of
        the end, float32 (words + 1,)."""
        # Neighbours share most of their beginnings.
        order = sorted(range(len(texts)), key=lambda i: tuple(texts[i]))
        results: list[np.ndarray] = [np.zeros(0, np.float32)] * len(texts)
        tree, waiting = _Tree(), []
        for i in order:
            waiting.append((i, list(self._grow(tree, texts[i]))))
            if len(tree.pieces) > _NODES or i == order[-1]:
                scores = self._scores(tree)
                for k, ends in waiting:
                    at = np.array([0, *ends])
                    results[k] = (scores[at[1:]] - scores[at[:-1]]).astype(np.float32)
                tree, waiting = _Tree(), []
        return results

    def _grow(self, tree: _Tree, text: Sequence[str]) -> Iterator[int]:
        """The node in which each word ends, and that of the end of the text."""
        node = 0
        for word in text:
            if word not in self._pieces:
                self._pieces[word] = tuple(self._tokenizer.encode(word).ids)
            for piece in self._pieces[word]:
                node = tree.child(node, piece)
            yield node
        yield tree.child(node, SENTENCE)

    @torch.inference_mode()
    def _scores(self, tree: _Tree) -> np.ndarray:
        """float64 (nodes,): log-probability of all pieces from the first up to each node."""
        parents = np.array(tree.parents)
        depths = np.zeros(len(parents), np.int64)
        visible = np.zeros((len(parents), len(parents)), bool)
        visible[0, 0] = True
        for node in range(1, len(parents)):
            depths[node] = depths[parents[node]] + 1
            visible[node] = visible[parents[node]]
            visible[node, node] = True
        # What nothing follows need not be seen.
        inner = np.unique(parents[1:])
        pieces = torch.tensor(tree.pieces, device=self._device)
        seen, places, sees = (
            torch.from_numpy(a).to(self._device)
            for a in (inner, depths[inner], visible[np.ix_(inner, inner)])
        )
        with autocast(self._device):
            logits = self._network.logits(self._network(pieces[seen][None], places, sees)[0]).float()
        rows = torch.from_numpy(np.searchsorted(inner, parents[1:])).to(self._device)
        steps = (logits[rows, pieces[1:]] - logits.logsumexp(1)[rows]).cpu().numpy()
        scores = np.zeros(len(parents))
        for node in range(1, len(parents)):
            scores[node] = scores[parents[node]] + steps[node - 1]
        return scores


class _Tree:
    """Nodes in the order in which they came; the first is the begin of all texts."""

    def __init__(self) -> None:
        self.pieces, self.parents = [SENTENCE], [0]
        self._children: dict[tuple[int, int], int] = {}

    def child(self, node: int, piece: int) -> int:
        found = self._children.setdefault((node, piece), len(self.pieces))
        if found == len(self.pieces):
            self.pieces.append(piece)
            self.parents.append(node)
        return found

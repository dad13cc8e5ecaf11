"""The decoder's engine on a GPU: a whole batch at once, and nothing but words and frames comes back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from asr.decoder.added import Added
from asr.decoder.compiled import Compiled
from asr.decoder.gpu_block import HOST, MOST_THREADS, ONE_THREAD, allocate, cuda, download, upload
from asr.decoder.gpu_memory import (
    Batch,
    Graph,
    Work,
    allocate_work,
    blocks_within,
    capacity_of,
    records_of,
    upload_compiled,
    upload_view,
)
from asr.decoder.gpu_place import Scratch, Words, place_words
from asr.decoder.gpu_search import search_batch
from asr.decoder.live import View
from asr.decoder.options import DecoderOptions

# Of one launch. An utterance takes about 1.5 MB at beam_size 1000.
MOST_BLOCKS, MOST_BYTES = 256, 1 << 30


@dataclass(frozen=True)
class Found:
    """The best path of an utterance, the frame in which each of its tokens begins, and how often memory was
    full."""

    path: list[Added]
    token_frames: tuple[int, ...]
    score: float
    overflow: int


@dataclass(frozen=True)
class _Best:
    """What a search says of an utterance: the pronunciation of each word and its last token's frame."""

    pronunciations: list[int]
    frames: list[int]
    score: float
    overflow: int


@dataclass(frozen=True)
class _Piece:
    """A word whose tokens are to be placed; the last one begins in frame `last`, the first not before
    `first`."""

    utterance: int
    tokens: np.ndarray
    first: int
    last: int


class GpuEngine:
    """Decodes batches on what is torch's current device when it is made; callers wait for one another.

    The first batch of a process waits for its kernels to be compiled.
    """

    def __init__(self, compiled: Compiled, options: DecoderOptions, threads: int = MOST_THREADS) -> None:
        """`threads` of a block: a power of two. Raises ValueError where no GPU can be used."""
        if reason := missing():
            raise ValueError(reason)
        self._compiled, self._options = compiled, options
        self._threads = 1 if ONE_THREAD else threads
        self._device = torch.device("cpu" if HOST else f"cuda:{torch.cuda.current_device()}")
        self._fixed: dict[str, Any] = {}
        self._work: Work | None = None
        self._view: View | None = None
        self._graph: Graph | None = None
        self._lock = threading.Lock()

    def decode(self, view: View, log_probs: Any, lengths: Sequence[int]) -> list[Found]:
        """The best path of each utterance. `log_probs` (batch, frames, tokens), numpy or torch on any device.

        Raises ValueError for NaN.
        """
        found: list[Found] = []
        capacity = capacity_of(self._options)
        size = min(MOST_BLOCKS, blocks_within(MOST_BYTES, capacity, records_of(capacity, log_probs.shape[1])))
        for i in range(0, len(lengths), size):
            part = lengths[i : i + size]
            with self._lock, contextlib.nullcontext() if HOST else cuda.gpus[self._device.index]:
                found += self._decode(view, _emissions(log_probs[i : i + size], part, self._device), part)
        return found

    def _decode(self, view: View, log_probs: torch.Tensor, lengths: Sequence[int]) -> list[Found]:
        best = self._search(self._graph_of(view), log_probs, lengths)
        paths = [[view.said(p) for p in b.pronunciations] for b in best]
        pieces = [
            _Piece(u, said.tokens, before + 1, last)
            for u, (path, b) in enumerate(zip(paths, best, strict=True))
            for said, before, last in zip(path, [-1, *b.frames], b.frames, strict=False)
        ]
        places = iter(self._place(log_probs, pieces))
        return [
            Found(path, tuple(int(t) for _ in path for t in next(places)), b.score, b.overflow)
            for path, b in zip(paths, best, strict=True)
        ]

    def _place(self, log_probs: torch.Tensor, pieces: Sequence[_Piece]) -> list[np.ndarray]:
        """The frame in which each token of each piece begins, int32."""
        if not pieces:
            return []
        sizes = np.array([len(piece.tokens) for piece in pieces], np.int32)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        first = np.array([piece.first for piece in pieces], np.int32)
        last = np.array([piece.last for piece in pieces], np.int32)
        room = np.concatenate([[0], np.cumsum((last - first + 1) * 2 * sizes.astype(np.int64))])
        words = Words(
            utterance=upload(np.array([piece.utterance for piece in pieces], np.int32)),
            tokens=upload(np.concatenate([piece.tokens for piece in pieces]).astype(np.int16)),
            offsets=upload(offsets),
            first=upload(first),
            last=upload(last),
        )
        scratch = Scratch(
            frames=upload(np.zeros(offsets[-1], np.int32)),
            back=allocate((int(room[-1]),), np.int8),
            back_at=upload(room[:-1]),
            scores=allocate((4 * int(offsets[-1]),), np.float32),
        )
        blocks = -(-len(pieces) // self._threads)
        place_words(blocks, self._threads, words, scratch, _shared_with_numba(log_probs))
        return np.split(download(scratch.frames), offsets[1:-1])

    def _graph_of(self, view: View) -> Graph:
        """On the device, uploaded once for each version of the vocabulary."""
        if self._graph is None or self._view is not view:
            self._fixed = self._fixed or upload_compiled(self._compiled)
            self._graph, self._view = upload_view(view, self._compiled, self._fixed), view
        return self._graph

    def _search(self, graph: Graph, log_probs: torch.Tensor, lengths: Sequence[int]) -> list[_Best]:
        size, frames = len(lengths), max(1, log_probs.shape[1])
        batch = Batch(
            log_probs=_shared_with_numba(log_probs),
            lengths=upload(np.array(lengths, np.int32)),
            pronunciations=allocate((size, frames), np.int32),
            frames=allocate((size, frames), np.int32),
            num_words=allocate((size,), np.int32),
            scores=allocate((size,), np.float32),
            overflows=allocate((size,), np.int32),
            beam_size=self._options.beam_size,
            beam=float(self._options.beam_threshold),
            blank_skip=float(np.log(np.float64(self._options.blank_skip_threshold))),
        )
        search_batch(size, self._threads, graph, self._room(size, frames), batch)
        pronunciations, ends = download(batch.pronunciations), download(batch.frames)
        counts, scores = download(batch.num_words), download(batch.scores)
        overflows = download(batch.overflows)
        return [
            _Best(pronunciations[i, :n].tolist(), ends[i, :n].tolist(), float(scores[i]), int(overflows[i]))
            for i, n in enumerate(counts.tolist())
        ]

    def _room(self, blocks: int, frames: int) -> Work:
        """Memory of an earlier launch where it is enough."""
        capacity = capacity_of(self._options)
        records = records_of(capacity, frames)
        work = self._work
        if work is None or work.keys.shape[0] < blocks or work.record_before.shape[1] < records:
            self._work = work = None  # what is too small goes before what is larger comes
            work = self._work = allocate_work(blocks, capacity, records)
        return work


def missing() -> str:
    """What a GPU engine lacks here, in one line; empty where it can run."""
    if HOST:
        return ""
    if not torch.cuda.is_available():
        return "engine gpu: no CUDA device is available here; use engine cpu"
    try:
        usable = cuda.is_available()
    except Exception:  # the driver of one CUDA, the compiler of another: numba has many names for it
        usable = False
    if not usable:
        return "engine gpu: numba cannot use this CUDA: pip install 'phonebook-asr[gpu]'"
    return ""


def _emissions(log_probs: Any, lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """On the device, float32 and contiguous; moved only where they are not there already.

    Raises ValueError for NaN within the lengths.
    """
    tensor = torch.as_tensor(log_probs).detach().to(device, torch.float32)
    inside = torch.arange(tensor.shape[1], device=device) < torch.tensor(lengths, device=device)[:, None]
    if bool((torch.isnan(tensor).any(2) & inside).any()):
        raise ValueError("log_probs holds NaN")
    # A log-probability of minus infinity is one that no path can afford.
    return tensor.clamp(min=-1e5).contiguous()


def _shared_with_numba(tensor: torch.Tensor) -> Any:
    """The same memory for numba, once torch has written it."""
    if not tensor.numel():
        tensor = tensor.new_zeros((max(1, tensor.shape[0]), 1, tensor.shape[2]))
    if HOST:
        return upload(tensor.numpy())
    torch.cuda.current_stream(tensor.device).synchronize()
    return cuda.as_cuda_array(tensor)

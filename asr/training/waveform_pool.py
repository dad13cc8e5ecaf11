"""The waveforms of all prepared speech, one behind the other, and how a batch gets at its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_CHUNK = 1 << 26  # samples that go to a device at a time


class WaveformPool:
    """int16 samples of mapped files. On a GPU all of them are in its memory (an hour takes 115 MB), where a
    batch is gathered in no time; on a processor they stay in their files, of which the system keeps in memory
    what it has room for."""

    def __init__(self, waveforms: Sequence[np.ndarray], device: torch.device) -> None:
        self._files = waveforms
        self._ends = np.cumsum([len(waveform) for waveform in waveforms])
        self._whole = None if device.type == "cpu" else self._read_all(device)

    def holding(self, starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """int16 (samples,) with the recordings from `starts` (n,) on, `lengths` long, each within a file; and
        where in it each begins (n,)."""
        if self._whole is not None:
            return self._whole, starts
        firsts = lengths.cumsum(0) - lengths
        pool = np.empty(int(lengths.sum()), np.int16)
        for first, start, length in zip(firsts.tolist(), starts.tolist(), lengths.tolist(), strict=True):
            file = int(np.searchsorted(self._ends, start, side="right"))
            start -= int(self._ends[file]) - len(self._files[file])
            pool[first : first + length] = self._files[file][start : start + length]
        return torch.from_numpy(pool), firsts

    def _read_all(self, device: torch.device) -> Tensor:
        """In pieces: the files may be of any size."""
        pool = torch.empty(int(self._ends[-1]), dtype=torch.int16, device=device)
        at = 0
        for waveform in self._files:
            for i in range(0, len(waveform), _CHUNK):
                chunk = torch.tensor(waveform[i : i + _CHUNK])
                pool[at : at + len(chunk)] = chunk
                at += len(chunk)
        return pool

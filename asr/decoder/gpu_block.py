"""A block of threads that works on one utterance: what they share, and how together they sort and scan.

The same code runs in three ways: on a GPU; in numba's CUDA simulator (NUMBA_ENABLE_CUDASIM=1), with many
threads but slow; and with PHONEBOOK_GPU=one-thread compiled for the CPU as blocks of one thread, fast enough
to test whole utterances on machines without a GPU. The environment decides when this module is imported.

Threads of a block meet at `sync`: what one wrote before is read by the others after it.
"""

from __future__ import annotations

import os
import warnings
from typing import Any, NamedTuple

import numpy as np
from numba import config, cuda, njit

ONE_THREAD = os.environ.get("PHONEBOOK_GPU") == "one-thread"
HOST = ONE_THREAD or bool(config.ENABLE_CUDASIM)  # there is no device: memory is the host's
MOST_THREADS = 256
# Places in Block.ints: counters of a frame, the bins of its histogram, a number of each thread.
CANDIDATES, RECORDS, COUNT, OVERFLOW = range(4)
BINS = 16
OF_THREAD = BINS + 256
NUM_INTS = OF_THREAD + MOST_THREADS
_LAST = np.int64(0x7FFFFFFFFFFFFFFF)  # sorts behind all keys


class Block(NamedTuple):
    """Which block and thread this is, and the memory that the block's threads share: int32 and, one for each
    thread, float32."""

    number: int
    thread: int
    threads: int
    ints: Any
    floats: Any


if ONE_THREAD:
    # Nothing but kernels calls these functions, and nothing is allocated in them.
    device = njit(cache=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)

    @device
    def sync():
        pass

    @device
    def fetch_add(array, index, value):
        old = array[index]
        array[index] += value
        return old

    def kernel(body: Any) -> Any:
        """`kernel(body)(blocks, threads, ...)` runs body(Block, ...) in each thread of so many blocks."""

        @njit(no_cfunc_wrapper=True)
        def run(blocks, graph, work, batch):
            for number in range(blocks):
                ints, floats = np.zeros(NUM_INTS, np.int32), np.zeros(MOST_THREADS, np.float32)
                body(Block(np.int64(number), np.int64(0), np.int64(1), ints, floats), graph, work, batch)

        return lambda blocks, threads, *arguments: run(blocks, *arguments)

else:
    device = cuda.jit(device=True)

    @device
    def sync():
        cuda.syncthreads()

    @device
    def fetch_add(array, index, value):
        return cuda.atomic.add(array, index, value)

    def kernel(body: Any) -> Any:
        """`kernel(body)(blocks, threads, ...)` runs body(Block, ...) in each thread of so many blocks."""

        @cuda.jit
        def run(graph, work, batch):
            ints = cuda.shared.array(NUM_INTS, np.int32)
            floats = cuda.shared.array(MOST_THREADS, np.float32)
            number, thread = np.int64(cuda.blockIdx.x), np.int64(cuda.threadIdx.x)
            body(Block(number, thread, np.int64(cuda.blockDim.x), ints, floats), graph, work, batch)

        def launch(blocks: int, threads: int, *arguments: Any) -> None:
            with warnings.catch_warnings():
                # Few utterances do not fill a GPU, and are no mistake.
                warnings.filterwarnings("ignore", message="Grid size")
                run[blocks, threads](*arguments)

        return launch


def upload(array: np.ndarray) -> Any:
    """The array where kernels read it; one element where it is empty, for a GPU has no empty arrays."""
    array = np.ascontiguousarray(array) if array.size else np.zeros((1,) * array.ndim, array.dtype)
    return array if ONE_THREAD else cuda.to_device(array)


def allocate(shape: tuple[int, ...], dtype: Any) -> Any:
    """Memory for kernels, not cleared."""
    return np.empty(shape, dtype) if ONE_THREAD else cuda.device_array(shape, dtype)


def download(array: Any) -> np.ndarray:
    return array if ONE_THREAD else array.copy_to_host()


@device
def sort(block, keys, values, count):
    """Sort keys[block.number, :count], int64, and the values that go with them; equal keys by value.

    A bitonic network (Batcher 1968): which pairs are compared does not depend on the data. Up to the next
    power of two the arrays are overwritten.
    """
    b = block.number
    size = np.int64(1)
    while size < count:
        size *= 2
    for i in range(count + block.thread, size, block.threads):
        keys[b, i], values[b, i] = _LAST, _LAST
    sync()
    run = np.int64(2)
    while run <= size:
        stride = run // 2
        while stride > 0:
            for i in range(block.thread, size // 2, block.threads):
                low = 2 * i - (i & (stride - 1))
                high = low + stride
                key, other = keys[b, low], keys[b, high]
                value, other_value = values[b, low], values[b, high]
                later = key > other or (key == other and value > other_value)
                if later == ((low & run) == 0):
                    keys[b, low], keys[b, high] = other, key
                    values[b, low], values[b, high] = other_value, value
            sync()
            stride //= 2
        run *= 2


@device
def exclusive_max(block, values, count, start):
    """Each of values[block.number, :count], float32, becomes the most of `start` and all before it."""
    b, t = block.number, block.thread
    size = (count + block.threads - 1) // block.threads
    begin, end = min(t * size, count), min((t + 1) * size, count)
    most = start
    for i in range(begin, end):
        most = max(most, values[b, i])
    block.floats[t] = most
    sync()
    most = start
    for i in range(t):
        most = max(most, block.floats[i])
    for i in range(begin, end):
        value = values[b, i]
        values[b, i] = most
        most = max(most, value)
    sync()


@device
def best_of(block, score, place):
    """The best score of all threads and its place, the lowest where several are equal."""
    t = block.thread
    block.floats[t], block.ints[OF_THREAD + t] = score, place
    sync()
    stride = block.threads // 2
    while stride > 0:
        if t < stride:
            other, other_place = block.floats[t + stride], block.ints[OF_THREAD + t + stride]
            mine, my_place = block.floats[t], block.ints[OF_THREAD + t]
            if other > mine or (other == mine and other_place < my_place):
                block.floats[t], block.ints[OF_THREAD + t] = other, other_place
        sync()
        stride //= 2
    score, place = block.floats[0], np.int64(block.ints[OF_THREAD])
    sync()
    return score, place

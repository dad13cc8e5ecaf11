"""Threads that share the work of many utterances."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import torch


def workers(count: int) -> ThreadPoolExecutor:
    """So many threads, 0: one a core, in each of which torch computes alone: one utterance a thread keeps all
    cores busy, all cores on one small product wait for each other."""
    count = count or len(os.sched_getaffinity(0))
    started = threading.Barrier(count + 1)

    def start() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # from here on the thread keeps to it
        started.wait()

    pool, before = ThreadPoolExecutor(count, "phonebook"), torch.get_num_threads()
    for _ in range(count):
        pool.submit(start)
    started.wait()
    torch.set_num_threads(before)  # it is what new threads of others begin with, too
    return pool

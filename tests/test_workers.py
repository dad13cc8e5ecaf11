"""Threads with an utterance each."""

import os
import threading

import pytest
import torch

from asr.workers import workers


def test_each_thread_computes_alone_and_others_as_before() -> None:
    before = torch.get_num_threads()
    with workers(3) as pool:
        meeting = threading.Barrier(3)

        def inside(_: int) -> tuple[str, int]:
            meeting.wait(10)  # so that each thread does one
            torch.ones(400, 400) @ torch.ones(400, 400)
            return threading.current_thread().name, torch.get_num_threads()

        found = list(pool.map(inside, range(3)))
        assert len({name for name, _ in found}) == 3 and {n for _, n in found} == {1}
        other: list[int] = []
        thread = threading.Thread(target=lambda: other.append(torch.get_num_threads()))
        thread.start()
        thread.join()
    assert torch.get_num_threads() == before and other == [before]


def test_by_default_one_a_core() -> None:
    with workers(0) as pool:
        assert pool._max_workers == len(os.sched_getaffinity(0))


def test_an_error_comes_out() -> None:
    with workers(2) as pool, pytest.raises(ZeroDivisionError):
        list(pool.map(lambda x: 1 // x, [1, 0, 1]))

"""The GPU engine gives what the CPU engine gives.

Without a GPU its code runs in two other ways, in processes of their own since numba must know before it is
imported: `one-thread`, compiled for the CPU, on hundreds of random cases; and in numba's CUDA simulator,
where threads do run side by side, on a few.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_decoder import PHONES, WORDS, emissions, random_lexicon
from test_ngram import write_arpa

from asr.decoder import Decoder, DecoderOptions, NgramModel
from asr.lexicon import Entry, Lexicon
from asr.phones import PhoneSet
from asr.types import Hypothesis

ON_DEVICE = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@dataclass(frozen=True)
class Case:
    """What two engines decode. `change` edits the vocabulary of a decoder."""

    lexicon: Lexicon
    lm: NgramModel | None
    options: DecoderOptions
    log_probs: Any  # numpy or torch
    lengths: list[int]
    phones: PhoneSet = PHONES
    change: Callable[[Decoder], None] = lambda decoder: None


def random_case(seed: int, folder: Path, most_frames: int = 40) -> Case:
    rng = np.random.default_rng(seed)
    lm = NgramModel.read(write_arpa(folder / f"{seed}.arpa", 1 + seed % 4, seed, sensible=seed % 3 > 0))
    options = DecoderOptions(
        beam_size=int(rng.choice([3, 20, 1000])),
        beam_threshold=float(rng.choice([2.0, 5.0, 10.0, 50.0])),
        blank_skip_threshold=float(rng.choice([0.6, 0.999, 1.0])),
        lm_weight=0.7,
        word_score=float(rng.choice([-1.0, 0.5, 2.0])),
        num_threads=1,
        unknown_word_score=-4.0,
        added_at_least_unknown=seed % 2 == 0,
    )
    lengths = [most_frames, 0, 1, *rng.integers(0, most_frames, 2).tolist()]
    log_probs = np.stack([emissions(rng, most_frames, peak=rng.uniform(0.5, 4)) for _ in lengths])
    names = random_lexicon(rng, ["new", "newer", "newest"]).entries
    liked = [replace(e, like=str(rng.choice(["", *WORDS])), boost=float(rng.uniform(-1, 2))) for e in names]

    def change(decoder: Decoder) -> None:
        for entry in liked[: seed % 5]:
            decoder.add_entry(entry)
        if seed % 3 == 0:
            decoder.add_entry(replace(names[0], word=WORDS[1]))
        if seed % 7 == 0:
            decoder.remove(WORDS[0])
        if seed % 5 and seed % 11 == 1:
            decoder.remove("new")

    return Case(random_lexicon(rng, WORDS), lm, options, log_probs, lengths, change=change)


def large_phone_set() -> Case:
    """Masks of several words, and a lexicon of many homophones."""
    rng = np.random.default_rng(4)
    phones = PhoneSet(("<blk>", *(f"x{i}" for i in range(145)), "p", "t", "k", "s"))
    log_probs = np.full((2, 30, len(phones)), -50.0, np.float32)
    log_probs[:, :, [0, 146, 147, 148, 149]] = np.stack([emissions(rng, 30) for _ in range(2)])
    lexicon = random_lexicon(rng, [f"w{i}" for i in range(60)])
    return Case(lexicon, None, DecoderOptions(), log_probs, [30, 20], phones)


def benchmark_cases(bench: Path) -> Iterator[Case]:
    """All recordings of the benchmark, those of `zs` with its names added."""
    phones = PhoneSet.read(bench / "tokens.txt")
    lexicon, lm = Lexicon.read([bench / "lexicon.txt"], phones), NgramModel.read(bench / "3gram.arpa.xz")
    names = Lexicon.read([bench / "names_lexicon.txt"], phones).entries

    def add_names(decoder: Decoder) -> None:
        for name in names:
            decoder.add_entry(name)

    for recordings, change, beam in (("main", lambda decoder: None, 12.0), ("zs", add_names, 14.0)):
        with np.load(bench / f"{recordings}_dev.npz") as archive:
            frames, offsets = archive["log_probs"], archive["offsets"]
        lengths = np.diff(offsets).tolist()
        log_probs = np.zeros((len(lengths), max(lengths), frames.shape[1]), np.float32)
        for row, begin, length in zip(log_probs, offsets, lengths, strict=False):
            row[:length] = frames[begin : begin + length]
        options = DecoderOptions(beam_threshold=beam, num_threads=1)
        yield Case(lexicon, lm, options, log_probs, lengths, phones, change)


def differences(cases: Iterator[Case], threads: int) -> dict[str, Any]:
    """How far the engines are apart over all utterances."""
    result = {"utterances": 0, "words": 0, "frames": 0, "score": 0.0, "acoustic": 0.0, "overflows": 0}
    for case in cases:
        found: list[list[list[Hypothesis]]] = []
        for engine in ("cpu", "gpu"):
            decoder = Decoder(case.lexicon, case.lm, case.phones, replace(case.options, engine=engine))
            assert (decoder._gpu is not None) == (engine == "gpu")
            if decoder._gpu is not None:
                decoder._gpu._threads = min(threads, decoder._gpu._threads)
            case.change(decoder)
            found.append(decoder.decode(case.log_probs, case.lengths))
            result["overflows"] += decoder.overflows
        for (cpu,), (gpu,) in zip(*found, strict=True):
            result["utterances"] += 1
            result["words"] += cpu.words != gpu.words
            result["frames"] += cpu.token_frames != gpu.token_frames
            result["score"] = max(result["score"], abs(cpu.score - gpu.score))
            result["acoustic"] = max(result["acoustic"], abs(cpu.acoustic_score - gpu.acoustic_score))
    return result


# What the other processes run.


def compare_compiled() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        random = differences((random_case(seed, Path(folder)) for seed in range(200)), 1)
    return {
        "random": random,
        "large": differences(iter([large_phone_set()]), 1),
        **crowded(),
        **refused(),
        "parts": in_parts(),
    }


def crowded() -> dict[str, Any]:
    """Equal scores everywhere and more places than there is room for, and then an easy utterance."""
    rng = np.random.default_rng(3)
    many = PhoneSet(("<blk>", *(f"x{i}" for i in range(60))))
    sounds = rng.integers(0, 60, (20_000, 4))
    lexicon = Lexicon(
        tuple(Entry(word=f"w{i}", phones=tuple(many.phones[k] for k in row)) for i, row in enumerate(sounds))
    )
    decoder = Decoder(lexicon, None, many, DecoderOptions(beam_size=100, engine="gpu"))
    flat = decoder.decode(np.full((1, 12, 61), -np.log(61), np.float32))[0][0]
    overflows = decoder.overflows
    said = np.full((1, 8, 61), np.log(1e-4), np.float32)
    said[0, np.arange(8), np.stack([1 + sounds[7], np.zeros(4, int)], 1).ravel()] = np.log(0.99)
    words = decoder.decode(said)[0][0].words
    return {
        "flat score": flat.score,
        "overflows": overflows,
        "later overflows": decoder.overflows - overflows,
        "words": words,
    }


def in_parts() -> bool:
    """Whether a batch of which few utterances fit the memory at a time is what it is at once."""
    from asr.decoder import gpu, gpu_memory

    case = large_phone_set()
    batch, lengths = case.log_probs[[0, 1, 1, 0, 1]], [30, 20, 7, 0, 30]
    decoder = Decoder(case.lexicon, None, case.phones, DecoderOptions(engine="gpu"))
    at_once = decoder.decode(batch, lengths)
    work = decoder._gpu._work
    gpu.MOST_BYTES = sum(array.nbytes for array in work[:-1]) * 2 // 5  # what two of the five take
    parts = gpu_memory.blocks_within(gpu.MOST_BYTES, work.keys.shape[1], work.record_before.shape[1])
    return parts == 2 and decoder.decode(batch, lengths) == at_once


def refused() -> dict[str, Any]:
    decoder = Decoder(None, None, PHONES, DecoderOptions(engine="gpu"))
    good = emissions(np.random.default_rng(0), 6)[None]
    bad = good.copy()
    bad[0, 4, 2] = np.nan
    messages = []
    for log_probs, lengths in ((bad, None), (good[:, :, :4], None), (good[0], None), (good, [7])):
        try:
            decoder.decode(log_probs, lengths)
        except ValueError as error:
            messages.append(str(error))
    # NaN behind the end is nobody's business, and nothing is a batch too.
    kept = decoder.decode(bad, [4])[0][0] == decoder.decode(good, [4])[0][0]
    return {"messages": messages, "kept": kept, "empty": len(decoder.decode(good[:0], []))}


def compare_benchmark() -> dict[str, Any]:
    """By hand: PHONEBOOK_GPU=one-thread python tests/test_gpu_decoder.py compare_benchmark FOLDER"""
    return differences(benchmark_cases(Path(sys.argv[2])), 1)


def compare_simulated() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        cases = (random_case(seed, Path(folder), most_frames=6) for seed in (4, 6))
        result = {"random": differences(cases, 8), "crowded": crowded_by_threads(Path(folder))}
    return result | {"tools": tools_agree_with_numpy(8)}


def crowded_by_threads(folder: Path) -> list[tuple[int, list[Any]]]:
    """Overflows and results where there is room for 32 candidates, with one thread and with eight."""
    from asr.decoder import gpu

    gpu.capacity_of = lambda options: 32
    case, results = random_case(2, folder, most_frames=5), []
    for threads in (1, 8):
        decoder = Decoder(case.lexicon, case.lm, case.phones, replace(case.options, engine="gpu"))
        decoder._gpu._threads = threads
        found = [(h.words, h.token_frames, h.score) for (h,) in decoder.decode(case.log_probs, case.lengths)]
        results.append((decoder.overflows, found))
    return results


def tools_agree_with_numpy(threads: int) -> list[str]:
    """Which of sort, exclusive_max and best_of are right for several sizes."""
    from asr.decoder import gpu_block
    from asr.decoder.gpu_block import allocate, download, kernel, upload

    @gpu_block.device
    def body(block, numbers, keys, values):
        count = numbers[0, 0]
        gpu_block.exclusive_max(block, values, count, np.float32(0.5))
        score, place = gpu_block.best_of(block, np.float32(keys[0, block.thread] % 3), block.thread)
        numbers[1, block.thread], numbers[2, block.thread] = np.int64(score), place
        gpu_block.sync()
        gpu_block.sort(block, keys, numbers[3:4], count)

    run, right = kernel(body), []
    for count in (1, 2, 5, 8, 23, 32):
        rng = np.random.default_rng(count)
        size = max(threads, 32)
        keys, values = rng.integers(0, 9, (1, size)), rng.normal(0, 1, (1, size)).astype(np.float32)
        numbers = np.zeros((4, size), np.int64)
        numbers[0, 0], numbers[3] = count, rng.permutation(size)
        arrays = [upload(a) for a in (numbers, keys, values)]
        run(1, threads, *arrays)
        numbers_after, keys_after, values_after = map(download, arrays)
        order = np.lexsort((numbers[3, :count], keys[0, :count]))
        before = np.maximum.accumulate(np.append(np.float32(0.5), values[0, : count - 1]))
        best = keys[0, :threads] % 3
        if (
            (keys_after[0, :count] == keys[0, order]).all()
            and (numbers_after[3, :count] == numbers[3, order]).all()
            and (values_after[0, :count] == before).all()
            and (numbers_after[1, :threads] == best.max()).all()
            and (numbers_after[2, :threads] == best.argmax()).all()
        ):
            right.append(f"{count}")
    assert allocate((2,), np.int32).shape == (2,)
    return right


def in_process_of_its_own(name: str, **variables: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, name],
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def agree(result: dict[str, Any]) -> None:
    assert (result["words"], result["frames"]) == (0, 0)
    assert result["score"] < 1e-3
    assert result["acoustic"] < 1e-3


@pytest.mark.slow
def test_compiled_for_one_thread() -> None:
    result = in_process_of_its_own("compare_compiled", PHONEBOOK_GPU="one-thread")
    assert result["random"]["utterances"] == 1000
    agree(result["random"])
    agree(result["large"])
    assert result["overflows"] > 0
    assert np.isfinite(result["flat score"])
    assert (result["later overflows"], result["words"]) == (0, ["w7"])
    parts = ("NaN", "tokens", "shape", "lengths")
    assert all(part in message for part, message in zip(parts, result["messages"], strict=True))
    assert result["kept"]
    assert result["parts"]
    assert result["empty"] == 0


@pytest.mark.slow
def test_in_the_simulator_with_many_threads() -> None:
    result = in_process_of_its_own("compare_simulated", NUMBA_ENABLE_CUDASIM="1")
    assert result["random"]["utterances"] == 10
    agree(result["random"])
    alone, together = result["crowded"]
    assert alone[0] > 0
    assert alone == together
    assert result["tools"] == ["1", "2", "5", "8", "23", "32"]


def test_what_the_engine_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="engine must be"):
        DecoderOptions(engine="tpu")
    for options in ({"nbest": 2}, {"unknown": "mark"}):
        with pytest.raises(ValueError, match="engine cpu"):
            DecoderOptions(engine="gpu", **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_one_line_says_so() -> None:
    with pytest.raises(ValueError, match="no CUDA device") as error:
        Decoder(None, None, PHONES, DecoderOptions(engine="gpu"))
    assert "\n" not in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match=r"pip install 'phonebook-asr\[gpu\]'"):
        Decoder(None, None, PHONES, DecoderOptions(engine="gpu"))


@ON_DEVICE
@pytest.mark.gpu
def test_random_cases_on_the_device(tmp_path: Path) -> None:
    result = differences((random_case(seed, tmp_path) for seed in range(300)), 256)
    assert result["utterances"] == 1500
    agree(result)


@ON_DEVICE
@pytest.mark.gpu
@pytest.mark.slow
def test_full_size_on_the_device(bench: Path) -> None:
    """From tensors that are on the device."""
    cases = benchmark_cases(bench)
    result = differences((replace(c, log_probs=torch.from_numpy(c.log_probs).cuda()) for c in cases), 256)
    assert result["utterances"] > 100
    agree(result)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()))

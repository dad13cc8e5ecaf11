"""How soon a written word is heard, and what long lists cost: times for zero_shot.py's section of RESULTS.md.

    python recipes/zero_shot_edit.py --sizes 0,1000,10000 --lists 5000,50000

A recogniser runs with a lexicon file of invented names. A line is written into the file and a recording
transcribed; what that takes longer than without the edit is the time from the file to the ear. Then lists are
read with and without like=, as `asr words import names.txt --like smith` writes them: time, memory, and the
decoding speed before and after.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from benchmark_measure import memory_mb
from zero_shot_data import NAME, guess, invent

from asr import Recognizer, audio
from asr.errors import one_line_errors
from asr.lexicon import Entry
from asr.lines import format_entry

RECORDING = Path(__file__).parents[1] / "tests" / "examples" / "name-kestrovan.opus"
WORD = "kestrovan"  # is said there
REPEATS = 5


def seconds(function: Callable[[], object]) -> tuple[float, float]:
    """By the wall clock and of this process."""
    start, start_process = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - start_process


def middle(measured: Sequence[tuple[float, float]]) -> tuple[float, float]:
    wall, process = zip(*measured, strict=True)
    return statistics.median(wall), statistics.median(process)


def measure_edit(names: Sequence[str], file: Path) -> tuple[tuple[float, float], tuple[float, float]]:
    """Seconds of a transcription without an edit, and of one after WORD was written into a file of `names`.

    Writing the file is part of it. Raises AssertionError where the word is not heard then.
    """
    waveform = audio.load(RECORDING)
    without = "".join(f"{name}\n" for name in names)
    file.write_text(without, encoding="utf-8")
    recognizer = Recognizer.load(lexicon=[file], user_lexicon=False, device="cpu")
    recognizer.transcribe_waveform(waveform)
    quiet, edited = [], []
    for _ in range(REPEATS):
        quiet.append(seconds(lambda: recognizer.transcribe_waveform(waveform)))
        heard = []

        def edit_and_hear(heard: list[str] = heard) -> None:
            file.write_text(f"{without}{WORD}\n", encoding="utf-8")
            heard.append(recognizer.transcribe_waveform(waveform).text)

        edited.append(seconds(edit_and_hear))
        assert WORD in heard[0], f"{WORD} is not heard: {heard[0]}"
        file.write_text(without, encoding="utf-8")
        assert WORD not in recognizer.transcribe_waveform(waveform).text
    return middle(quiet), middle(edited)


def measure_add(recognizer: Recognizer, entries: Sequence[Entry]) -> tuple[float, float]:
    """Seconds of `decoder.add` for one word, in the middle."""
    return middle([seconds(lambda entry=entry: recognizer.decoder.add_entry(entry)) for entry in entries])


def measure_list(entries: Sequence[Entry], file: Path) -> tuple[float, float, float, float]:
    """Process seconds to read the file into a running recogniser, MB that it then takes more, and RTFx before
    and after."""
    waveform = audio.load(RECORDING)
    file.write_text("", encoding="utf-8")
    recognizer = Recognizer.load(lexicon=[file], user_lexicon=False, device="cpu")
    emissions = recognizer.emissions(waveform).log_probs[None]

    def speed() -> float:
        recognizer.decoder.decode(emissions)
        measured = [seconds(lambda: recognizer.decoder.decode(emissions)) for _ in range(20)]
        return len(waveform) / audio.SAMPLE_RATE / middle(measured)[1]

    before, memory = speed(), memory_mb("RssAnon")
    lines = [format_entry(entry, recognizer.model.phones) for entry in entries]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    _, read_s = seconds(lambda: recognizer.transcribe_waveform(waveform[:16_000]))
    return read_s, memory_mb("RssAnon") - memory, before, speed()


def main(sizes: Sequence[int], lists: Sequence[int]) -> None:
    recognizer = Recognizer.load(user_lexicon=False, device="cpu")
    words = list(dict.fromkeys(entry.word for entry in recognizer.lexicon.entries))
    names = invent(words, {*words, WORD}, max(*sizes, *lists), seed=0)
    phones = recognizer.model.phones
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "names.txt"
        print(
            "| words in the file | transcription ms | with an edit ms | edit to ear ms |\n|---|---|---|---|"
        )
        for size in sizes:
            quiet, edited = measure_edit(names[:size], file)
            cells = [f"{1000 * a:.0f} ({1000 * b:.0f})" for a, b in (quiet, edited)]
            extra = [1000 * (edited[i] - quiet[i]) for i in range(2)]
            print(f"| {size:,} | {cells[0]} | {cells[1]} | {extra[0]:.0f} ({extra[1]:.0f}) |", flush=True)
        wall, process = measure_add(recognizer, guess(names[:200], phones))
        print(f"\ndecoder.add: {1000 * wall:.2f} ms ({1000 * process:.2f}) a word\n")
        print("| list | like | read s | MB | RTFx before | after |\n|---|---|---|---|---|---|")
        for size in lists:
            for like in ("", NAME):
                entries = [
                    Entry(word=entry.word, phones=entry.phones, like=like)
                    for entry in guess(names[:size], phones)
                ]
                read_s, more, before, after = measure_list(entries, file)
                print(
                    f"| {size:,} | {like} | {read_s:.2f} | {more:.0f} | {before:.0f} | {after:.0f} |",
                    flush=True,
                )


def cli(
    sizes: Annotated[str, typer.Option(help="words that the file has before the edit")] = "0,100,1000,10000",
    lists: Annotated[str, typer.Option(help="lengths of lists that are imported")] = "5000,50000",
) -> None:
    """Print Markdown tables: wall clock, and in brackets time of the process."""
    with one_line_errors():
        main([int(size) for size in sizes.split(",")], [int(size) for size in lists.split(",")])


if __name__ == "__main__":
    typer.run(cli)

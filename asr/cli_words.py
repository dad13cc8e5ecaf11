"""`asr words`: the lexicon from the command line. Each command calls its twin in asr.words and prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.errors import one_line_errors, warn

if TYPE_CHECKING:
    from asr.lexicon import Entry

app = typer.Typer(help="Add, remove, look up and check words; import and export them.", no_args_is_help=True)

FileOption = Annotated[
    Path | None, typer.Option("--lexicon", help="the file to work on instead of your own (user.txt)")
]
LmOption = Annotated[Path | None, typer.Option("--lm", help="ARPA language model (plain, .gz, .xz)")]
LikeOption = Annotated[
    str | None, typer.Option("--like", help="a common word in whose place the new one may stand")
]
BoostOption = Annotated[
    float | None, typer.Option("--boost", help="bonus, natural log: 2.3 makes it ten times as likely")
]
WeightOption = Annotated[float | None, typer.Option("--weight", help="share of the pronunciation, 0 to 1")]
FORMATS = "plain, cmudict, mfa, kaldi or csv"


@app.command()
def add(
    word: Annotated[str, typer.Argument(help="as it is to stand in the transcript")],
    pronunciation: Annotated[
        list[str] | None, typer.Argument(help='its sounds in quotes, "s ɜː ʃ ə"; guessed if left out')
    ] = None,
    like: LikeOption = None,
    boost: BoostOption = None,
    weight: WeightOption = None,
    lang: Annotated[
        str, typer.Option("--lang", help="guess by the rules of a language: de, fr-fr, ga, ...")
    ] = "",
    sounds_like: Annotated[
        str, typer.Option("--sounds-like", help='guess from a respelling, "sur sha"')
    ] = "",
    lexicon: FileOption = None,
    lm: LmOption = None,
) -> None:
    """Add a word, or another pronunciation of it."""
    from asr import words

    with one_line_errors():
        written = words.add(
            word, pronunciation or (), file=lexicon, like=like, boost=boost, weight=weight, language=lang,
            sounds_like=sounds_like, lm=lm,
        )  # fmt: skip
        for entry in written:
            print(_described(entry))


@app.command()
def remove(
    word: Annotated[str, typer.Argument(help="as it stands in the file")],
    pronunciation: Annotated[
        list[str] | None, typer.Argument(help="only these, in quotes; all if left out")
    ] = None,
    lexicon: FileOption = None,
) -> None:
    """Take a word out."""
    from asr import words

    with one_line_errors():
        for entry in words.remove(word, pronunciation or (), file=lexicon):
            print(f"removed {_described(entry)}")


@app.command("list")
def list_words(lexicon: FileOption = None) -> None:
    """List the words of the file."""
    from asr import words

    with one_line_errors():
        found = words.entries(lexicon)
    for entry in found:
        print(_described(entry))
    if not found:
        warn("no words yet: asr words add WORD")


@app.command()
def show(
    word: Annotated[str, typer.Argument()],
    lexicon: Annotated[
        list[Path] | None, typer.Option("--lexicon", help="look here instead of in user.txt (repeatable)")
    ] = None,
    lm: LmOption = None,
) -> None:
    """Tell all that is known of a word: its sounds and where they come from, homophones, language model."""
    from asr import words

    with one_line_errors():
        shown = words.show(word, files=lexicon, lm=lm)
        for entry in shown.entries:
            guessed = " (guessed from the spelling)" if entry in shown.guessed else ""
            print(f"{_described(entry)}\t{entry.where}{guessed}")
        for phones, others in shown.homophones.items():
            if others:
                print(f"sounds the same as {', '.join(others)}: {' '.join(phones)}")
        if shown.lm_word:
            named = "" if shown.lm_word == word else f" as {shown.lm_word!r}"
            print(
                f"language model: known{named}, {shown.lm_score:.2f} without context, "
                f"number {shown.lm_rank:,} of {shown.lm_size:,} words"
            )
        else:
            print(f"language model: unknown, {shown.lm_score:.2f} everywhere; --like WORD gives it a place")


@app.command()
def check(
    lexicon: Annotated[
        list[Path] | None, typer.Option("--lexicon", help="check this file instead of user.txt (repeatable)")
    ] = None,
    frequent: Annotated[
        int, typer.Option("--frequent", help="warn for the sake of the N most frequent words", min=0)
    ] = 10_000,
    lm: LmOption = None,
) -> None:
    """Look for errors, and for words that will be confused with others. Status 1: there are errors."""
    from asr import lint

    with one_line_errors():
        findings = lint.check(lexicon, frequent=frequent, lm=lm)
    for finding in findings:
        print(finding)
    if not findings:
        warn("nothing found")
    if any(finding.error for finding in findings):
        raise typer.Exit(1)


@app.command("import")
def import_words(
    file: Annotated[Path, typer.Argument(help="word list or pronunciation dictionary")],
    format: Annotated[str, typer.Option("--from", help=f"{FORMATS}; guessed if left out")] = "",
    like: LikeOption = None,
    boost: BoostOption = None,
    weight: WeightOption = None,
    lexicon: FileOption = None,
    lm: LmOption = None,
) -> None:
    """Add all words of a list or dictionary. Status 1: some lines were left out."""
    from asr import words

    with one_line_errors():
        result = words.import_file(
            file, format=format, file=lexicon, like=like, boost=boost, weight=weight, lm=lm
        )
    shown = 10
    for problem in result.problems[:shown]:
        warn(problem)
    if len(result.problems) > shown:
        warn(f"{file}: and {len(result.problems) - shown} more lines left out")
    there = f", {result.already} there already" if result.already else ""
    out = f", {len(result.problems)} lines left out" if result.problems else ""
    print(f"{file} ({result.format}): {len(result.added)} pronunciations added{there}{out}")
    if result.problems:
        raise typer.Exit(1 if result.added or result.already else 2)


@app.command("export")
def export_words(
    file: Annotated[Path, typer.Argument(help="file to write, - for stdout")],
    format: Annotated[str, typer.Option("--to", help=f"{FORMATS}; csv if the file is named so")] = "",
    lexicon: FileOption = None,
) -> None:
    """Write the words in the form of another system."""
    from asr import words

    with one_line_errors():
        if not format and file.suffix.lower() != ".csv":
            raise ValueError(f"say with --to what to write: {FORMATS}")
        text = words.export_text(format or "csv", file=lexicon)
        if str(file) == "-":
            sys.stdout.write(text)
        else:
            words.write_export(file, text, lexicon)


def _described(entry: Entry) -> str:
    """Word TAB sounds and attributes, as in the file."""
    fields = [entry.word, " ".join(entry.phones) or "(guessed)"]
    fields += [f"weight={entry.weight:g}"] if entry.weight != 1.0 else []
    fields += [f"like={entry.like}"] if entry.like else []
    fields += [f"boost={entry.boost:g}"] if entry.boost else []
    return "\t".join(fields)

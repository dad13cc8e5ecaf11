"""`asr words`: the lexicon from the command line. Each command calls its twin in asr.words and prints."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.edit import make_room
from asr.errors import one_line_errors, warn

if TYPE_CHECKING:
    from asr.lexicon import Entry
    from asr.report import Report

app = typer.Typer(help="Add, remove, look up and check words; import and export them.", no_args_is_help=True)

FileOption = Annotated[
    Path | None, typer.Option("--lexicon", help="the file to work on instead of your own (user.txt)")
]
LmOption = Annotated[
    Path | None, typer.Option("--lm", help="n-gram language model: ARPA (plain, .gz, .xz) or .ngrams.xz")
]
LikeOption = Annotated[
    str | None, typer.Option("--like", help="a common word in whose place the new one may stand")
]
BoostOption = Annotated[
    float | None, typer.Option("--boost", help="bonus, natural log: 2.3 makes it ten times as likely")
]
WeightOption = Annotated[float | None, typer.Option("--weight", help="share of the pronunciation, 0 to 1")]
ModelOption = Annotated[Path | None, typer.Option("--model", help="folder of an acoustic model")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda")]
SHOWN = 8  # candidates, places
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
            if shown.lm_floor > shown.lm_score:
                print(f"as a word of your own: at least {shown.lm_floor:.2f}")
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


@app.command()
def learn(
    word: Annotated[str, typer.Argument(help="as it is to stand in the transcript")],
    recording: Annotated[list[str], typer.Argument(help="recordings of the word alone; several are better")],
    choose: Annotated[int, typer.Option("--choose", help="add number N of the table", min=1)] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the table, add nothing")] = False,
    in_sentence: Annotated[
        bool, typer.Option("--in-sentence", help="other words are said around it: find it among them")
    ] = False,
    lang: Annotated[
        list[str] | None, typer.Option("--lang", help="guess by the rules of this language (repeatable)")
    ] = None,
    like: LikeOption = None,
    boost: BoostOption = None,
    lexicon: FileOption = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    lm: LmOption = None,
) -> None:
    """Add a word as it is said in recordings of it: its spelling and what is heard decide together."""
    from asr import learn as learning

    with one_line_errors():
        learnt = learning.learn(
            word, _files(recording), file=lexicon, like=like, boost=boost, choose=choose, dry_run=dry_run,
            in_sentence=in_sentence, languages=lang or learning.LANGUAGES, model=model, device=device, lm=lm,
        )  # fmt: skip
    best = learnt.candidates[0].score
    for number, candidate in enumerate(learnt.candidates[: max(SHOWN, choose)], 1):
        fit, sources = f"{candidate.score - best:.1f}", ", ".join(candidate.sources)
        print(f"{number}\t{fit}\t{' '.join(candidate.sounds)}\t{sources}")
    for note in learnt.notes:
        warn(note)
    for entry in learnt.added:
        print(f"added {_described(entry)}")


@app.command()
def suggest(
    recording: Annotated[list[str], typer.Argument(help="files, folders, globs")],
    add: Annotated[
        bool, typer.Option("--add", help="write them at the end of your file, commented, to be confirmed")
    ] = False,
    least: Annotated[int, typer.Option("--least", help="only what was heard N times or more", min=1)] = 1,
    lexicon: FileOption = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    lm: LmOption = None,
) -> None:
    """Find words in recordings that no lexicon has: how often, how written, how said, where."""
    from asr import suggest as suggesting

    with one_line_errors():
        files = _files(recording)
        result = suggesting.suggest(
            files, file=lexicon, add=add, least=least, model=model, lm=lm, device=device
        )
    for failure in result.failures:
        warn(failure.reason)
    if len(result.failures) == len(files):
        raise typer.Exit(2)
    for found in result.suggestions:
        known = " (there already, with other sounds)" if found.known else ""
        where = ", ".join(f"{place.path} {place.start_s:.1f} s" for place in found.places[:SHOWN])
        more = f" and {len(found.places) - SHOWN} more" if len(found.places) > SHOWN else ""
        spelt = ", ".join([found.spelling + known, *found.spellings[1:]])
        print(f"{len(found.places)}\t{spelt}\t{' '.join(found.sounds)}\t{where}{more}")
    if not result.suggestions:
        warn("nothing found that the lexicons do not have")
    elif add and not result.added:
        warn("nothing new: all of them stand in the file already")
    elif add:
        print(f"{len(result.added)} new ones written: delete the # before those that are right")
    if result.failures:
        raise typer.Exit(1)


@app.command()
def report(
    manifest: Annotated[list[Path], typer.Argument(help="TSV or jsonl with path and text")],
    words: Annotated[
        Path | None, typer.Option("--words", help="report on these (one a line), not on your own")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write all of it here")] = None,
    lexicon: FileOption = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    lm: LmOption = None,
) -> None:
    """Tell how words fare in recordings with known text: found, missed and as what, better pronunciations."""
    import json

    from asr.manifest import read_manifest

    with one_line_errors():
        utterances = [u for file in manifest for u in read_manifest(file)]
        if json_file is not None:
            make_room(json_file)
        from asr.report import report as run

        result = run(utterances, file=lexicon, word_list=words, model=model, lm=lm, device=device)
        if json_file is not None:
            text = json.dumps(result.as_dict(), ensure_ascii=False, indent=1)
            json_file.write_text(text + "\n", encoding="utf-8")
    for failure in result.failures:
        warn(failure.reason)
    for line in _report_lines(result):
        print(line)
    if result.failures:
        raise typer.Exit(1)


def _report_lines(result: Report) -> Iterator[str]:
    for item in result.words:
        yield f"{item.word}: {item.found} of {item.said} found" + (f", {item.false} false" * bool(item.false))
        if not item.heard_as:
            yield "    in no lexicon"
        for sounds, times in item.heard_as:
            yield f"    {times:4d} as  {' '.join(sounds)}"
        for heard, times in item.instead:
            yield f"    {times:4d} lost to  {heard or '(nothing)'}"
        if item.proposal is not None:
            said = " ".join(item.proposal.sounds)
            yield f"    {item.proposal.better:4d} rather  {said}  (better by {item.proposal.gain:.1f})"
    share = f" ({result.found / result.said:.0%})" if result.said else ""
    yield f"{len(result.words)} words, {result.found} of {result.said} found{share}"
    if result.unsaid:
        more = f" and {len(result.unsaid) - SHOWN} more" if len(result.unsaid) > SHOWN else ""
        yield f"not in the texts: {', '.join(result.unsaid[:SHOWN])}{more}"


def _files(given: list[str]) -> list[str]:
    """The recordings named. Raises ValueError for the first that is not there."""
    from asr import audio

    files, errors = audio.find(given)
    if errors:
        raise ValueError(errors[0])
    return files


def _described(entry: Entry) -> str:
    """Word TAB sounds and attributes, as in the file."""
    fields = [entry.word, " ".join(entry.phones) or "(guessed)"]
    fields += [f"weight={entry.weight:g}"] if entry.weight != 1.0 else []
    fields += [f"like={entry.like}"] if entry.like else []
    fields += [f"boost={entry.boost:g}"] if entry.boost else []
    return "\t".join(fields)

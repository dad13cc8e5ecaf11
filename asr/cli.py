"""The command line. A command reads its options, calls one function of the library and prints.

Everything heavy is imported inside the commands, so that help and errors come at once.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import asr
from asr import cli_words
from asr.edit import make_room
from asr.errors import fail, one_line_errors, warn

if TYPE_CHECKING:
    from asr.decoder import DecoderOptions
    from asr.transcribe import Recognizer
    from asr.types import Transcript

app = typer.Typer(
    help="Speech recognition whose vocabulary is a text file.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip

LexiconOption = Annotated[
    list[Path] | None, typer.Option("--lexicon", help="lexicon file to add (repeatable)")
]
WordsOption = Annotated[
    str | None, typer.Option("--words", help='words to add, "NAME, NAME", pronounced as spelt')
]
LmOption = Annotated[
    Path | None, typer.Option("--lm", help="n-gram language model: ARPA (plain, .gz, .xz) or .ngrams.xz")
]
NeuralLmOption = Annotated[
    str | None, typer.Option("--neural-lm", help="folder of a second language model, or off (faster)")
]
ModelOption = Annotated[Path | None, typer.Option("--model", help="folder of an acoustic model")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda")]
BeamOption = Annotated[int, typer.Option("--beam-size", help="most hypotheses alive at a time", min=1)]
OnlyOption = Annotated[
    Path | None,
    typer.Option("--only", help="lexicon file with all words that can be said (commands, digits)"),
]
UserOption = Annotated[
    bool, typer.Option("--user-lexicon/--no-user-lexicon", help="use your own words (user.txt)")
]


def main() -> None:
    """Run the command line: an expected error is a line on stderr and exit status 2."""
    try:
        app()
    except BrokenPipeError:
        sys.exit(1)


app.add_typer(cli_words.app, name="words")


@app.callback(invoke_without_command=True)
def callback(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        print(asr.__version__)
        raise typer.Exit
    logging.basicConfig(format="asr: %(message)s", force=True)


@app.command()
def transcribe(
    path: Annotated[list[str], typer.Argument(help="files, folders, globs, or - for stdin")],
    lexicon: LexiconOption = None,
    words: WordsOption = None,
    lm: LmOption = None,
    neural_lm: NeuralLmOption = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    format: Annotated[str, typer.Option("--format", help="txt or json")] = "txt",
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", help="write a file for each recording here")
    ] = None,
    beam_size: BeamOption = 1000,
    nbest: Annotated[int, typer.Option("--nbest", help="print the N best texts with scores", min=1)] = 1,
    unknown: Annotated[
        str, typer.Option("--unknown", help="other words: off, mark as <phones>, or spell by ear")
    ] = "off",
    only: OnlyOption = None,
    user_lexicon: UserOption = True,
) -> None:
    """Write down what is said in recordings."""
    if format not in ("txt", "json"):
        fail(f"--format {format}: take txt or json")
    from asr import audio, formats

    files, errors = audio.find(path)
    for error in errors:
        warn(error)
    if not files:
        raise typer.Exit(2)
    with one_line_errors():
        options = _options(beam_size, nbest, unknown)
        if output_dir is not None:
            written_to = _output_paths(files, output_dir, formats.EXTENSIONS[format])
            for target in written_to.values():
                make_room(target)
        recognizer = _load(lexicon, words, lm, model, device, options, user_lexicon, only, neural_lm)
        from asr.transcribe import Failure

        done, finished = 0, []
        with _progress(len(files)) as advance:
            for result in recognizer.stream(files):
                advance()
                if isinstance(result, Failure):
                    warn(result.reason)
                    continue
                done += 1
                if output_dir is not None:
                    _write(written_to[result.path], result, format)
                elif format == "json":
                    finished.append(result)
                else:
                    print(formats.txt(result, named=len(files) > 1), flush=True)
        if format == "json" and output_dir is None:
            print(formats.as_json(finished))
    if not done:
        raise typer.Exit(2)
    if errors or done < len(files):
        raise typer.Exit(1)


@app.command()
def evaluate(
    manifest: Annotated[list[Path], typer.Argument(help="TSV or jsonl with path and text")],
    lexicon: LexiconOption = None,
    words: WordsOption = None,
    lm: LmOption = None,
    neural_lm: NeuralLmOption = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    beam_size: BeamOption = 1000,
    recall: Annotated[
        Path | None, typer.Option("--recall", help="words (one a line) whose recall to print")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", help="only the first N utterances", min=0)] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write the numbers (rates as fractions)")
    ] = None,
    only: OnlyOption = None,
    user_lexicon: UserOption = True,
) -> None:
    """Word and phone error rates on transcribed recordings."""
    import json

    from asr.manifest import read_manifest
    from asr.text import normalize

    with one_line_errors():
        utterances = [u for file in manifest for u in read_manifest(file)]
        chosen = set()
        if recall is not None:
            chosen = {normalize(word) for word in _lines(recall)} - {""}
            if not chosen:
                raise ValueError(f"{recall}: no words in it")
        if json_file is not None:
            make_room(json_file)
        options = _options(beam_size)
        recognizer = _load(lexicon, words, lm, model, device, options, user_lexicon, only, neural_lm)
        from asr.evaluate import evaluate as run

        utterances = utterances[:limit] if limit else utterances
        with _progress(sum(u.duration for u in utterances)) as advance:
            result = run(recognizer, utterances, chosen or None, advance)
        for failure in result.failures:
            warn(failure.reason)
        if not result.scored:
            raise typer.Exit(2)
        low, high = result.interval
        print(f"WER    {result.words.rate:7.2%}  ({low:.2%} to {high:.2%}, 95 % bootstrap over utterances)")
        print(f"PER    {result.phones.rate:7.2%}  ({result.phones.total} phones, heard without the lexicon)")
        print(f"RTFx   {result.rtfx:7.1f}  ({result.seconds:.0f} s of audio in {result.wall_s:.1f} s)")
        if result.recall is not None:
            found = result.recall
            print(f"recall {found.rate:7.2%}  ({found.found} of {found.said}, {found.false} false)")
        print(f"{len(result.scored)} utterances, {result.words.total} words; most frequent errors:")
        for (said, heard), count in result.confusions():
            print(f"  {count:4d}  {said or '(nothing)'} -> {heard or '(nothing)'}")
        print("worst utterances:")
        for item in sorted(result.scored, key=lambda s: -s.errors.errors)[:5]:
            print(f"  {item.path}\n    said:  {item.reference}\n    heard: {item.heard}")
        if json_file is not None:
            json_file.write_text(json.dumps(result.as_dict(), indent=1) + "\n", encoding="utf-8")
    if result.failures:
        raise typer.Exit(1)


@app.command()
def phones(
    path: Annotated[list[str], typer.Argument(help="files, folders, globs, or - for stdin")],
    lm: Annotated[Path | None, typer.Option("--lm", help="phone language model (KenLM or ARPA)")] = None,
    hot: Annotated[
        str | None, typer.Option("--hot", help='phone strings to prefer, "s ɜː ʃ ə, n oʊ"')
    ] = None,
    hot_weight: Annotated[float, typer.Option("--hot-weight", help="by how much (natural log)")] = 1.0,
    beam_size: Annotated[int, typer.Option("--beam-size", help="with --lm or --hot", min=1)] = 100,
    model: ModelOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Write down the sounds, without a lexicon."""
    from asr import audio
    from asr.open_phones import PhoneOptions, parse_hot

    files, errors = audio.find(path)
    for error in errors:
        warn(error)
    if not files:
        raise typer.Exit(2)
    done = 0
    with one_line_errors():
        options = PhoneOptions(lm=lm, hot=parse_hot(hot), hot_weight=hot_weight, beam_size=beam_size)
        from asr.transcribe import PhoneRecognizer

        recognizer = PhoneRecognizer.load(model, device, options)
        for file in files:
            try:
                heard = " ".join(recognizer.phones(audio.load(file)))
            except audio.AudioError as error:
                warn(str(error))
                continue
            done += 1
            print(f"{file}\t{heard}" if len(files) > 1 else heard, flush=True)
    if done < len(files) or errors:
        raise typer.Exit(1 if done else 2)


@app.command()
def say(
    text: Annotated[str, typer.Argument(help="what to say")],
    path: Annotated[Path, typer.Argument(help="sound file to write (.wav, .flac, .ogg)")],
    voice: Annotated[str, typer.Option("--voice", help="espeak-ng voice")] = "en-us",
    speed: Annotated[int, typer.Option("--speed", help="words per minute", min=80, max=450)] = 150,
) -> None:
    """Speak a text with espeak-ng, to have something to transcribe."""
    from asr.say import say as speak

    with one_line_errors():
        seconds = speak(text, path, voice, speed)
    print(f"{path}: {seconds:.1f} s", file=sys.stderr)


def _options(beam_size: int, nbest: int = 1, unknown: str = "off") -> DecoderOptions:
    from asr.decoder import for_embedded_model

    return for_embedded_model(beam_size=beam_size, nbest=nbest, unknown=unknown)


def _load(
    lexicon: list[Path] | None, words: str | None, lm: Path | None, model: Path | None, device: str,
    options: DecoderOptions, user_lexicon: bool, only: Path | None, neural_lm: str | None,
) -> Recognizer:  # fmt: skip
    from asr.transcribe import Recognizer

    recognizer = Recognizer.load(
        model=model,
        lexicon=lexicon or [],
        words=[word.strip() for word in (words or "").split(",") if word.strip()],
        lm=lm,
        device=device,
        options=options,
        user_lexicon=user_lexicon,
        only=only,
        neural_lm=neural_lm,
    )
    for note in recognizer.added.notes:
        warn(note)
    return recognizer


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None


def _output_paths(files: list[str], folder: Path, extension: str) -> dict[str, Path]:
    """Where each recording's text goes: folders below their common one are kept, equal names are numbered."""
    real = {file: Path(os.path.abspath("stdin" if file == "-" else file)) for file in files}
    common = os.path.commonpath([path.parent for path in real.values()])
    taken: dict[Path, str] = {}
    for file, path in real.items():
        target, number = folder / path.relative_to(common).with_suffix(extension), 1
        while target in taken:
            number += 1
            target = target.with_name(f"{path.stem}-{number}{extension}")
        taken[target] = file
    return {file: target for target, file in taken.items()}


def _write(path: Path, transcript: Transcript, format: str) -> None:
    from asr import formats

    text = formats.as_json([transcript]) if format == "json" else formats.txt(transcript)
    path.write_text(text + "\n", encoding="utf-8")


@contextmanager
def _progress(total: float):  # type: ignore[no-untyped-def]
    """A bar on stderr where somebody can see it; it is told how much more is done, by default 1."""
    if not sys.stderr.isatty() or total < 2:
        yield lambda amount=1: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("transcribing", total=total)
        yield lambda amount=1: bar.advance(task, amount)


if __name__ == "__main__":
    main()

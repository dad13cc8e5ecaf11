"""Word and phone error rates of a model on the development sets, as the table of RESULTS.md.

    python recipes/evaluate.py --data ~/phonebook-data --json work/evaluation.json

Each set's `dev.tsv` is transcribed with the embedded model or `--model`, without the user's own words. PER is
of the phones heard without lexicon, against the nearest of the lexicon's pronunciations of the reference
words. `--telephone` evaluates copies of the recordings as a telephone line would carry them.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from asr import Recognizer, audio
from asr.audio import AudioError
from asr.decoder import DecoderOptions, for_embedded_model
from asr.errors import one_line_errors
from asr.evaluate import Evaluation, evaluate
from asr.manifest import Utterance, read_manifest

SETS = ("librispeech_native", "librispeech_dev", "commonvoice", "ljspeech", "speechocean", "kathleen")


@dataclass(frozen=True, kw_only=True)
class Config:
    data: Path
    model: Path | None = None
    lm: Path | None = None
    neural_lm: str | None = None
    device: str = "auto"
    beam_size: int = DecoderOptions.beam_size
    limit: int = 0  # utterances of each set, 0 for all
    telephone: bool = False
    json_file: Path | None = None


def main(config: Config) -> None:
    """Raises ValueError where no set is there, and as `Recognizer.load`."""
    manifests = {name: config.data / name / "dev.tsv" for name in SETS}
    found = {name: manifest for name, manifest in manifests.items() if manifest.is_file()}
    if not found:
        raise ValueError(f"{config.data}: none of the sets is there: name their folder by --data")
    for name in (name for name in SETS if name not in found):
        print(f"{manifests[name]}: not there; the set is left out", file=sys.stderr)
    if config.json_file is not None:
        config.json_file.parent.mkdir(parents=True, exist_ok=True)
    recognizer = Recognizer.load(
        model=config.model, lm=config.lm, neural_lm=config.neural_lm, device=config.device,
        options=for_embedded_model(beam_size=config.beam_size), user_lexicon=False,
    )  # fmt: skip
    results: dict[str, dict[str, object]] = {}
    print("| set | utterances | words | WER % (95 % interval) | PER % | RTFx |")
    print("|---|---|---|---|---|---|")
    for name, manifest in found.items():
        utterances = read_manifest(manifest)
        with tempfile.TemporaryDirectory() as folder:
            chosen = utterances[: config.limit] if config.limit else utterances
            if config.telephone:
                chosen = [telephoned(u, Path(folder) / f"{i}.wav") for i, u in enumerate(chosen)]
            result = evaluate(recognizer, chosen)
        for failure in result.failures:
            print(failure.reason, file=sys.stderr)
        results[name] = result.as_dict()
        print(row(name, result), flush=True)
    if config.json_file is not None:
        config.json_file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def telephoned(utterance: Utterance, path: Path) -> Utterance:
    """The utterance in a new file, as a telephone line carries it; one that cannot be read is left as it is,
    and will fail where it is transcribed."""
    import librosa
    import scipy.signal
    import soundfile

    try:
        waveform = audio.load(utterance.path)
    except AudioError:
        return utterance
    narrow = librosa.resample(waveform, orig_sr=audio.SAMPLE_RATE, target_sr=8_000)
    band = scipy.signal.butter(4, (300, 3_400), "bandpass", fs=8_000, output="sos")
    # A filter overshoots, and mu-law has no values beyond full scale.
    carried = np.clip(scipy.signal.sosfilt(band, narrow), -1.0, 1.0)
    soundfile.write(path, carried, 8_000, subtype="ULAW")
    return replace(utterance, path=path)


def row(name: str, result: Evaluation) -> str:
    low, high = (100 * rate for rate in result.interval)
    return (
        f"| {name} | {len(result.scored)} | {result.words.total} | {100 * result.words.rate:.1f} "
        f"({low:.1f}-{high:.1f}) | {100 * result.phones.rate:.1f} | {result.rtfx:.0f} |"
    )


def cli(
    data: Annotated[Path, typer.Option(help="folder with the sets")] = Path(
        os.environ.get("PHONEBOOK_DATA", "../shared/data")
    ),
    model: Annotated[Path | None, typer.Option(help="folder of an acoustic model")] = None,
    lm: Annotated[Path | None, typer.Option(help="ARPA language model")] = None,
    neural_lm: Annotated[str | None, typer.Option(help="folder of a neural language model, or off")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = Config.device,
    beam_size: Annotated[int, typer.Option(help="most hypotheses alive at a time")] = Config.beam_size,
    limit: Annotated[int, typer.Option(help="only the first N utterances of each set")] = Config.limit,
    telephone: Annotated[bool, typer.Option("--telephone", help="300 to 3400 Hz, 8 kHz, mu-law")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the numbers there")] = None,
) -> None:
    """Print a Markdown table of error rates."""
    with one_line_errors():
        main(
            Config(
                data=data, model=model, lm=lm, neural_lm=neural_lm, device=device, beam_size=beam_size,
                limit=limit, telephone=telephone, json_file=json_file,
            )
        )  # fmt: skip


if __name__ == "__main__":
    typer.run(cli)

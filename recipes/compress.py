"""Smaller files of the same models, as the package has them.

    python recipes/compress.py work/best --out work/small
    python recipes/compress.py lm.arpa.gz --out lm.ngrams.xz
    python recipes/compress.py asr/pretrained/lm.ngrams.xz --out lm.arpa

The weights of an acoustic model or a neural language model with 8 bits a number instead of 16: they are read
as any other and computed with as before, only the numbers have become a little coarser. Training goes on
better from the larger one. An n-gram model packed number by number is half of a compressed ARPA file; its
scores are in hundredths of log10, or steps of several (--step). The last command makes ARPA of it again, for
other programs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from asr.decoder.ngram import read_ngrams
from asr.decoder.packed import SUFFIX, arpa_lines, pack
from asr.errors import one_line_errors
from asr.model.checkpoint import load_network, save_model
from asr.model.neural_lm import load_neural_lm, save_neural_lm
from asr.training.lm_tables import open_text


def smaller_weights(model: Path, out: Path) -> None:
    if (model / "tokenizer.json").exists():
        network, tokenizer = load_neural_lm(model)
        save_neural_lm(out, network, tokenizer, torch.int8)
    else:
        save_model(out, *load_network(model), torch.int8)
    before, after = ((folder / "model.safetensors").stat().st_size for folder in (model, out))
    print(f"{out}: {after / 1e6:.1f} MB, before {before / 1e6:.1f} MB")


def other_ngrams(model: Path, out: Path, step: int) -> None:
    """Packed or ARPA, as `out` is named. Raises ValueError for another name, and as `read_ngrams`."""
    if not out.name.endswith(SUFFIX) and ".arpa" not in out.suffixes:
        raise ValueError(f"--out {out}: name a file {SUFFIX}, or .arpa, .arpa.gz, .arpa.xz")
    words, sections = read_ngrams(model.read_bytes(), str(model))
    if out.name.endswith(SUFFIX):
        out.write_bytes(pack(words, sections, step))
    else:
        with open_text(out, "wt") as file:
            file.writelines(arpa_lines(words, sections))
    before, after = (path.stat().st_size for path in (model, out))
    print(f"{out}: {after / 1e6:.1f} MB, before {before / 1e6:.1f} MB")


def main(
    model: Annotated[
        Path, typer.Argument(help="folder of an acoustic or a neural language model; or an n-gram model")
    ],
    out: Annotated[Path, typer.Option(help="folder of the smaller one; or a file .ngrams.xz or .arpa")],
    step: Annotated[
        int, typer.Option(min=1, help="of the scores of packed n-grams, in hundredths of log10")
    ] = 1,
) -> None:
    """Store weights in 8 bits, or pack n-grams."""
    with one_line_errors():
        if out.resolve() == model.resolve():
            raise ValueError(f"--out {out} is the model itself: keep it and name another")
        if model.is_file():
            other_ngrams(model, out, step)
        else:
            smaller_weights(model, out)


if __name__ == "__main__":
    typer.run(main)

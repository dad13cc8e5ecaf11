"""The weights of a model with 8 bits a number instead of 16: half as large, for a small package.

    python recipes/compress.py work/best --out work/small

Takes an acoustic model or a neural language model. They are read as any other, and computed with as before:
only the numbers have become a little coarser. Training goes on better from the larger one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from asr.errors import one_line_errors
from asr.model.checkpoint import load_network, save_model
from asr.model.neural_lm import load_neural_lm, save_neural_lm


def main(
    model: Annotated[Path, typer.Argument(help="folder of an acoustic or a neural language model")],
    out: Annotated[Path, typer.Option(help="folder of the smaller one")],
) -> None:
    """Store weights in 8 bits."""
    with one_line_errors():
        if out.resolve() == model.resolve():
            raise ValueError(f"--out {out} is the model itself: training goes on better from it, so keep it")
        if (model / "tokenizer.json").exists():
            network, tokenizer = load_neural_lm(model)
            save_neural_lm(out, network, tokenizer, torch.int8)
        else:
            save_model(out, *load_network(model), torch.int8)
    before, after = ((folder / "model.safetensors").stat().st_size for folder in (model, out))
    print(f"{out}: {after / 1e6:.1f} MB, before {before / 1e6:.1f} MB")


if __name__ == "__main__":
    typer.run(main)

"""Average the weights of models that grew from one another (Wortsman et al. 2022, "Model soups").

    python recipes/average.py work/first/average work/second/average --out work/both
    python recipes/average.py work/before work/after --share 0.25 --share 0.75 --out work/both

Only models of one family lie close enough for it: a run and what `recipes/finetune.py` made of it afterwards.
A phone n-gram is that of the last one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.errors import one_line_errors
from asr.model.checkpoint import load_network, save_model


def main(
    model: Annotated[list[Path], typer.Argument(help="folders of models of one configuration")],
    out: Annotated[Path, typer.Option(help="folder of the average")],
    share: Annotated[
        list[float] | None, typer.Option(help="how much each model counts; else all the same")
    ] = None,
) -> None:
    """Average the weights of several models."""
    shares = share or [1.0] * len(model)
    with one_line_errors():
        if len(shares) != len(model) or not sum(shares) > 0:
            raise ValueError(f"--share {len(shares)} times for {len(model)} models: one for each, above 0")
        loaded = [load_network(folder) for folder in model]
        network, phones = loaded[0]
        for folder, (other, its_phones) in zip(model, loaded, strict=True):
            if other.encoder.config != network.encoder.config or its_phones != phones:
                raise ValueError(f"{folder}: not of the same configuration as {model[0]}")
    states = [other.state_dict() for other, _ in loaded]
    network.load_state_dict(
        {
            name: sum(w * s[name] for w, s in zip(shares, states, strict=True)) / sum(shares)
            for name in states[0]
        }
    )
    network.phone_lm = loaded[-1][0].phone_lm
    save_model(out, network, phones)


if __name__ == "__main__":
    typer.run(main)

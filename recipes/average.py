"""Average the weights of models that grew from one another (Wortsman et al. 2022, "Model soups").

    python recipes/average.py work/first/average work/second/average --out work/both
    python recipes/average.py work/before work/after --share 0.25 --share 0.75 --out work/both

Acoustic models, or neural language models. Only models of one family lie close enough for it: a run and what
`recipes/finetune.py` or `recipes/train_neural_lm.py --init` made of it afterwards. A phone n-gram is that of
the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from torch import Tensor, nn

from asr.errors import one_line_errors
from asr.model.checkpoint import load_network, save_model
from asr.model.neural_lm import load_neural_lm, save_neural_lm


def average_acoustic(models: Sequence[Path], shares: Sequence[float], out: Path) -> None:
    """Raises ValueError as `load_network`, and for models that do not fit together."""
    loaded = [load_network(folder) for folder in models]
    network, phones = loaded[0]
    for folder, (other, its_phones) in zip(models, loaded, strict=True):
        if other.encoder.config != network.encoder.config or its_phones != phones:
            raise ValueError(f"{folder}: not of the same configuration as {models[0]}")
    mean = weighted_mean([other for other, _ in loaded], shares)
    network.load_state_dict(mean)
    network.phone_lm = loaded[-1][0].phone_lm
    save_model(out, network, phones)


def average_language(models: Sequence[Path], shares: Sequence[float], out: Path) -> None:
    """Raises ValueError as `load_neural_lm`, and for models that do not fit together."""
    loaded = [load_neural_lm(folder) for folder in models]
    network, tokenizer = loaded[0]
    for folder, (other, its_tokenizer) in zip(models, loaded, strict=True):
        if other.config != network.config or its_tokenizer.to_str() != tokenizer.to_str():
            raise ValueError(f"{folder}: not of the same sizes and pieces as {models[0]}")
    network.load_state_dict(weighted_mean([other for other, _ in loaded], shares))
    save_neural_lm(out, network, tokenizer)


def weighted_mean(networks: Sequence[nn.Module], shares: Sequence[float]) -> dict[str, Tensor]:
    states = [network.state_dict() for network in networks]
    total = sum(shares)
    means = {}
    for name, weights in states[0].items():
        mean = weights * (shares[0] / total)
        for share, state in zip(shares[1:], states[1:], strict=True):
            mean = mean + state[name] * (share / total)
        means[name] = mean
    return means


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
        of_language = (model[0] / "tokenizer.json").exists()
        (average_language if of_language else average_acoustic)(model, shares, out)


if __name__ == "__main__":
    typer.run(main)

"""A deeper or wider acoustic model that computes what a smaller one does, to be trained on.

    python recipes/grow.py --model asr/pretrained --out work/grown
    python recipes/grow.py --model asr/pretrained --bottleneck 512 --out work/wide
    python recipes/finetune.py --prepared work/prepared --init work/grown --loss ctc-crf --hours 170 ...

After every second block (`--every`) comes a new one with the dilation of the block before it, whose output is
zero until training changes it: nothing that was learnt is lost, and there is room for more (Chen et al. 2016,
Net2Net, section 2.3: deeper by identities). With `--bottleneck` the blocks get more channels within instead,
which the output takes no notice of yet.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from asr.errors import one_line_errors
from asr.model.checkpoint import load_network, save_model
from asr.model.encoder import PhoneModel


def main(model: Path | None, out: Path, every: int = 2, bottleneck: int | None = None, seed: int = 1) -> None:
    """The embedded model by default. Raises ValueError as `load_network` and `wider`."""
    torch.manual_seed(seed)
    network, phones = load_network(model)
    save_model(out, deeper(network, every) if bottleneck is None else wider(network, bottleneck), phones)


def wider(network: PhoneModel, bottleneck: int) -> PhoneModel:
    """With `bottleneck` channels in each block. Raises ValueError where that is not more than there are."""
    config = network.encoder.config
    if bottleneck <= config.bottleneck:
        raise ValueError(f"--bottleneck must be above the {config.bottleneck} that there are")
    grown = PhoneModel(replace(config, bottleneck=bottleneck), len(network.ctc.bias))
    old, new = network.state_dict(), grown.state_dict()
    for name, weights in new.items():
        if weights.shape == old[name].shape:
            weights.copy_(old[name])
        elif name.endswith("out.weight"):  # (dim, bottleneck)
            weights.zero_()[:, : config.bottleneck] = old[name]
        else:  # rows of the convolution and its biases
            weights[: config.bottleneck] = old[name]
    grown.load_state_dict(new)
    grown.phone_lm = network.phone_lm
    return grown


def deeper(network: PhoneModel, every: int) -> PhoneModel:
    """With a new block after each `every` of the network's."""
    config = network.encoder.config
    # Where each block comes from; None is new.
    sources: list[int | None] = []
    for i in range(len(config.dilations)):
        sources += [i, None] if (i + 1) % every == 0 else [i]
    dilations: list[int] = []
    for source in sources:
        dilations.append(dilations[-1] if source is None else config.dilations[source])
    # Statistics come after the block that they came after.
    after = {old: sources.index(old - 1) + 1 for old in config.statistics_after}
    grown = PhoneModel(
        replace(config, dilations=tuple(dilations), statistics_after=tuple(after.values())),
        len(network.ctc.bias),
    )
    for block, source in zip(grown.encoder.blocks, sources, strict=True):
        if source is None:
            torch.nn.init.zeros_(block.out.weight)
        else:
            block.load_state_dict(network.encoder.blocks[source].state_dict())
    for old, new in after.items():
        grown.encoder.statistics[str(new)].load_state_dict(network.encoder.statistics[str(old)].state_dict())
    for name in ("stem", "norm"):
        getattr(grown.encoder, name).load_state_dict(getattr(network.encoder, name).state_dict())
    grown.ctc.load_state_dict(network.ctc.state_dict())
    grown.phone_lm = network.phone_lm
    return grown


def cli(
    out: Annotated[Path, typer.Option(help="folder of the larger model")],
    model: Annotated[Path | None, typer.Option(help="folder of a model; else the embedded one")] = None,
    every: Annotated[
        int | None, typer.Option(min=1, help="blocks before each new one, 2 unless given")
    ] = None,
    bottleneck: Annotated[
        int | None, typer.Option(help="channels within the blocks: wider, not deeper")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the new weights")] = 1,
) -> None:
    """Make a trained acoustic model deeper or wider."""
    with one_line_errors():
        if every and bottleneck:
            raise ValueError("--every makes it deeper, --bottleneck wider: one at a time")
        main(model, out, every or 2, bottleneck, seed)


if __name__ == "__main__":
    typer.run(cli)

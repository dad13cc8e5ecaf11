"""Pretrain the encoder on speech without labels: guess hidden frames from what is around them.

    # glibc: keep memory between steps
    export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296
    python recipes/prepare.py --data ~/phonebook-data --manifest recordings/all.tsv --out work/unlabelled
    python recipes/pretrain.py --prepared work/prepared --prepared work/unlabelled \\
        --objective best-rq --out runs/pretrained --hours 400
    python recipes/finetune.py --init runs/pretrained/encoder --prepared work/prepared --out runs/tuned

Two objectives: `contrastive` (wav2vec 2.0, Baevski et al. 2020) tells the quantized sound of a hidden frame
from those of others; `best-rq` (Chiu et al. 2022) names the frame's code in a random codebook. Transcripts
are not looked at. Muon (Jordan et al. 2024) on the blocks' matrices, AdamW on the rest, linear decay. On a
GPU or several, or in several processes: as recipes/finetune.py.

`--hours` is the audio passed through the network in all. An interrupted run goes on when the same command is
given again. `--out` holds `last.pt` (everything needed to go on), `encoder/` (a model for `--init`, whose
phones are not trained), `losses.jsonl`, `curves.png` and `events/` for TensorBoard. With one thread on the
same processor it becomes the very encoder that it would have been without the interruption.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn

from asr.errors import one_line_errors
from asr.model.arithmetic import autocast
from asr.model.checkpoint import start_network
from asr.model.encoder import EncoderConfig, PhoneModel
from asr.phones import PhoneSet
from asr.training.best_rq import BestRq, BestRqConfig
from asr.training.contrastive import Contrastive, ContrastiveConfig
from asr.training.journal import Journal
from asr.training.loop import (
    Pace,
    end_together,
    make_accelerator,
    replace_model,
    save_state,
    train,
)
from asr.training.prepared import Prepared
from asr.training.stepper import StepConfig, Stepper
from asr.training.unlabelled import UnlabelledBatch, UnlabelledConfig, UnlabelledSource

if TYPE_CHECKING:
    from accelerate import Accelerator


class Objective(StrEnum):
    CONTRASTIVE = "contrastive"
    BEST_RQ = "best-rq"


@dataclass(frozen=True, kw_only=True)
class Config:
    prepared: tuple[Path, ...]
    out: Path
    objective: Objective = Objective.BEST_RQ
    init: Path | None = None  # a model to start from, else random numbers
    hours: float = 400.0  # of audio passed in all
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    best_rq: BestRqConfig = field(default_factory=BestRqConfig)
    batch: UnlabelledConfig = field(default_factory=UnlabelledConfig)
    accumulate: int = 1  # batches of each process a step
    step: StepConfig = field(default_factory=StepConfig)
    save_every_s: float = 60.0
    report_every: int = 50  # steps
    threads: int = 1


def main(config: Config) -> None:
    """Raises ValueError for folders that were not prepared or hold too little, and for a run of another
    objective in `out`."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.step.seed)
    accelerator = make_accelerator()
    phones = PhoneSet.read(Path(__file__).parents[1] / "asr" / "pretrained" / "phones.txt")
    source = UnlabelledSource([Prepared.open(folder) for folder in config.prepared], config.batch)
    run = Run(config, phones, accelerator)
    if accelerator.is_main_process:
        sizes = (
            f"{source.hours:.2f} h, {sum(p.numel() for p in run.stepper.parameters) / 1e6:.2f} M parameters"
        )
        print(f"{sizes}, {accelerator.num_processes} x {accelerator.device.type}", file=sys.stderr)

    train(run, source, config.hours, config.save_every_s, config.report_every, config.accumulate)
    if accelerator.is_main_process:
        run.journal.draw()
    end_together(accelerator)


class Pretraining(nn.Module):
    """An encoder and what it is trained for."""

    def __init__(self, config: Config, network: PhoneModel) -> None:
        super().__init__()
        self.encoder = network.encoder
        self.objective: Contrastive | BestRq
        if config.objective is Objective.CONTRASTIVE:
            self.objective = Contrastive(config.contrastive, self.encoder.config.dim)
        else:
            sizes = self.encoder.config
            self.objective = BestRq(config.best_rq, sizes.dim, sizes.stride)

    def forward(
        self, batch: UnlabelledBatch, progress: float, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss, and what to report of it."""
        with autocast(batch.features.device):
            return self.objective(self.encoder, batch.features, batch.lengths, progress, rng)


class Run:
    """Network, objective, optimisers and counters: all that `last.pt` holds."""

    def __init__(self, config: Config, phones: PhoneSet, accelerator: Accelerator) -> None:
        self.config, self.phones, self.accelerator = config, phones, accelerator
        self.network = start_network(
            config.init, config.encoder, phones
        )  # its CTC head waits for finetune.py
        pretraining = Pretraining(config, self.network).to(accelerator.device)
        self.pretraining = accelerator.prepare(pretraining)
        self.objective = pretraining.objective

        self.stepper = Stepper(
            self.pretraining, self.network.encoder.blocks, accelerator, config.step, config.hours
        )
        if (config.out / "last.pt").exists():
            self._load()
        self.pace = Pace(self.stepper.hours)
        self.journal = Journal(config.out, self.stepper.steps)

    def step(self, batches: list[UnlabelledBatch]) -> dict[str, float]:
        # The random numbers are of masks, distractors and noise.
        progress = self.stepper.progress
        return self.stepper.step(batches, lambda batch, rng: (batch, progress, rng))

    def report(self, losses: dict[str, float]) -> None:
        steps, hours = self.stepper.steps, self.stepper.hours
        self.journal.add_losses(steps, hours, losses)
        print(self.pace.line(steps, hours, self.config.hours, losses), file=sys.stderr, flush=True)

    def save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "objective": self.objective.state_dict(),
            "config": json.dumps(asdict(self.config), default=str),
        } | self.stepper.state()
        save_state(state, self.config.out / "last.pt")
        replace_model(self.config.out / "encoder", self.network, self.phones, torch.float32)

    def _load(self) -> None:
        path = self.config.out / "last.pt"
        state = torch.load(path, map_location="cpu", weights_only=True)
        before = json.loads(state["config"])["objective"]
        if before != self.config.objective:
            raise ValueError(f"{path}: a run with --objective {before}: give that, or another --out")
        try:
            self.network.load_state_dict(state["network"])
            self.objective.load_state_dict(state["objective"])
        except RuntimeError:
            raise ValueError(
                f"{path}: a run with another --init or --codes: give that, or another --out"
            ) from None
        self.stepper.load(state)


def cli(
    prepared: Annotated[list[Path], typer.Option(help="what recipes/prepare.py wrote; may be repeated")],
    out: Annotated[Path, typer.Option(help="the run's folder; an interrupted run there goes on")],
    objective: Annotated[Objective, typer.Option(help="what to guess of hidden frames")] = Config.objective,
    init: Annotated[Path | None, typer.Option(help="a model folder to start from")] = None,
    hours: Annotated[float, typer.Option(help="audio to pass through the network, in hours")] = Config.hours,
    seconds: Annotated[float, typer.Option(help="of audio in a batch")] = UnlabelledConfig.seconds,
    codes: Annotated[int, typer.Option(help="of the random codebook")] = BestRqConfig.codes,
    muon_rate: Annotated[
        float, typer.Option(help="learning rate of the blocks' matrices")
    ] = StepConfig.muon_rate,
    adam_rate: Annotated[float, typer.Option(help="learning rate of everything else")] = StepConfig.adam_rate,
    accumulate: Annotated[
        int, typer.Option(min=1, help="batches of each process a step")
    ] = Config.accumulate,
    threads: Annotated[int, typer.Option(help="processor threads of each process")] = Config.threads,
    seed: Annotated[int, typer.Option(help="of weights, batches and masks")] = StepConfig.seed,
) -> None:
    """Pretrain an encoder without labels."""
    with one_line_errors():
        main(
            Config(
                prepared=tuple(prepared), out=out, objective=objective, init=init, hours=hours,
                batch=UnlabelledConfig(seconds=seconds, seed=seed), best_rq=BestRqConfig(codes=codes),
                step=StepConfig(muon_rate=muon_rate, adam_rate=adam_rate, seed=seed),
                accumulate=accumulate, threads=threads,
            )
        )  # fmt: skip


if __name__ == "__main__":
    typer.run(cli)

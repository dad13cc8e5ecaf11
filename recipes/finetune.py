"""Train the phone recogniser on prepared and aligned speech.

    # glibc: keep memory between steps
    export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296
    python recipes/finetune.py --prepared work/prepared --development work/prepared-dev \\
        --out runs/first --hours 400

CTC on the phones that the alignment chose among the lexicon's pronunciations; beside it, with a falling
weight, the class of every frame and the phones before and after it, which tell the young network where each
sound is. `--consistency` and `--intermediate` add losses that are off by default. Muon (Jordan et al. 2024)
on the matrices, AdamW on the rest, linear decay, an exponential average of the weights.

`--hours` is the audio passed through the network in all. An interrupted run goes on when the same command is
given again; `--out` then holds `last.pt` (everything needed to go on) and `average/` (the averaged model,
ready for `asr --model`). On one thread of the same processor it becomes the very model that it would have
been without the interruption; only the hours at which the development sets are judged may differ.
"""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from asr.errors import one_line_errors
from asr.model.checkpoint import load_network, save_model
from asr.model.encoder import EncoderConfig, PhoneModel
from asr.phones import PhoneSet
from asr.training.batches import Batch, BatchConfig, BatchSource
from asr.training.feature_augment import FeatureAugmentConfig
from asr.training.loop import Pace, make_optimizers, save_state, set_rates, train
from asr.training.objective import ObjectiveConfig, objective
from asr.training.prepared import Alignments, Prepared
from asr.training.progress import Judge


@dataclass(frozen=True, kw_only=True)
class Config:
    prepared: Path
    out: Path
    development: Path | None = None
    init: Path | None = None  # a model to start from, else random numbers
    hours: float = 400.0  # of audio passed in all
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    muon_rate: float = 0.02
    adam_rate: float = 1.5e-3
    warmup_steps: int = 200
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    dropout: float = 0.0
    clip: float = 5.0
    average_decay: float = 0.999
    save_every_s: float = 60.0
    judge_every_hours: float = 25.0
    threads: int = 1
    seed: int = 1


def main(config: Config) -> None:
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    phones = PhoneSet.read(Path(__file__).parents[1] / "asr" / "pretrained" / "phones.txt")
    prepared = Prepared.open(config.prepared)
    source = BatchSource(prepared, Alignments.open(config.prepared / "alignments.npz"), config.batch)
    judge = Judge.open(config.development, phones) if config.development else None
    run = Run(config, phones)
    print(f"{len(source.usable):,} utterances, {run.num_parameters / 1e6:.2f} M parameters", file=sys.stderr)

    judged = run.hours

    def judge_now_and_then() -> None:
        nonlocal judged
        if judge is not None and run.hours - judged >= config.judge_every_hours:
            run.judge(judge)
            judged = run.hours

    train(run, source, config.hours, config.save_every_s, after_step=judge_now_and_then)
    if judge is not None:
        run.judge(judge)


class Run:
    """Network, optimisers and counters: all that `last.pt` holds."""

    def __init__(self, config: Config, phones: PhoneSet) -> None:
        self.config, self.phones = config, phones
        self.network = PhoneModel(config.encoder, len(phones), auxiliary=True)
        for block in self.network.encoder.blocks:
            block.dropout = config.dropout
        if config.init is not None:
            self.network.load_state_dict(load_network(config.init)[0].state_dict(), strict=False)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.num_parameters = sum(p.numel() for p in self.network.parameters())
        self.optimizers = make_optimizers(
            self.network.encoder.blocks, self.network.parameters(), config.muon_rate, config.adam_rate
        )
        self.steps = self.epoch = self.batch = 0
        self.hours = 0.0
        self.updating = False  # between the first weight that a step changes and its counters
        if (config.out / "last.pt").exists():
            self._load()
        self.pace = Pace(self.hours)

    @property
    def progress(self) -> float:
        """Share of the training that is done, 0 to 1."""
        return min(1.0, self.hours / self.config.hours)

    def step(self, batch: Batch) -> dict[str, float]:
        config = self.config
        rates = (config.muon_rate, config.adam_rate)
        factor = set_rates(self.optimizers, rates, self.steps, config.warmup_steps, self.progress)
        loss, parts = objective(self.network, batch, config.objective, self.progress)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        self.updating = True
        if torch.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
        self.network.zero_grad(set_to_none=True)
        decay = min(config.average_decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - decay)
        self.steps, self.batch, self.hours = self.steps + 1, self.batch + 1, self.hours + batch.seconds / 3600
        self.updating = False
        return {name: part.item() for name, part in parts.items()} | {"norm": norm.item(), "rate": factor}

    def report(self, losses: dict[str, float]) -> None:
        print(self.pace.line(self.steps, self.hours, self.config.hours, losses), file=sys.stderr, flush=True)

    def judge(self, judge: Judge) -> None:
        rates = judge.phone_error_rates(self.average)
        line = {
            "hours": round(self.hours, 1),
            "steps": self.steps,
            "per": {k: round(v, 4) for k, v in rates.items()},
        }
        print(json.dumps(line), file=sys.stderr, flush=True)
        with (self.config.out / "judged.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "counters": (self.steps, self.epoch, self.batch, self.hours),
            "random": torch.get_rng_state(),
            "config": json.dumps(asdict(self.config), default=str),
        }
        save_state(state, self.config.out / "last.pt")
        save_model(self.config.out / "average", self.average, self.phones)

    def _load(self) -> None:
        state = torch.load(self.config.out / "last.pt", map_location="cpu", weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.steps, self.epoch, self.batch, self.hours = state["counters"]
        if "random" in state:
            torch.set_rng_state(state["random"])
        print(f"going on from step {self.steps}, {self.hours:.1f} h", file=sys.stderr)


def cli(
    prepared: Annotated[Path, typer.Option(help="features and alignments")],
    out: Annotated[Path, typer.Option(help="the run's folder; an interrupted run there goes on")],
    development: Annotated[
        Path | None, typer.Option(help="prepared development sets, to watch the PER")
    ] = None,
    init: Annotated[Path | None, typer.Option(help="a model folder to start from")] = None,
    hours: Annotated[float, typer.Option(help="audio to pass through the network, in hours")] = Config.hours,
    muon_rate: Annotated[
        float, typer.Option(help="learning rate of the blocks' matrices")
    ] = Config.muon_rate,
    adam_rate: Annotated[float, typer.Option(help="learning rate of everything else")] = Config.adam_rate,
    dropout: Annotated[float, typer.Option(help="in the blocks' bottlenecks")] = Config.dropout,
    warp: Annotated[float, typer.Option(help="share of utterances with another vocal tract length")] = 0.0,
    noise: Annotated[float, typer.Option(help="share of utterances with noise or babble mixed in")] = 0.0,
    mel_width: Annotated[int, typer.Option(help="widest SpecAugment mask in mels")] = BatchConfig.mel_width,
    time_mask_scale: Annotated[
        float, typer.Option(help="times as many SpecAugment masks in time; with --consistency 2.5 is usual")
    ] = 1.0,
    consistency: Annotated[
        float, typer.Option(help="weight of the agreement of two masked copies of each utterance: 0.2, or 0")
    ] = ObjectiveConfig.consistency,
    intermediate: Annotated[
        float, typer.Option(help="share of the CTC loss in the middle of the network: 0.3, or 0")
    ] = ObjectiveConfig.intermediate,
    threads: Annotated[int, typer.Option(help="processor threads")] = Config.threads,
    seed: Annotated[int, typer.Option(help="of weights, batches and masks")] = Config.seed,
) -> None:
    """Train a phone recogniser."""
    augment = FeatureAugmentConfig(warp_probability=warp, noise_probability=noise)
    with one_line_errors():
        if not time_mask_scale > 0:
            raise ValueError(f"--time-mask-scale must be above 0, not {time_mask_scale:g}")
        batch = BatchConfig(
            seed=seed, mel_width=mel_width, augment=augment, copies=2 if consistency else 1,
            time_every=round(BatchConfig.time_every / time_mask_scale),
        )  # fmt: skip
        main(
            Config(
                prepared=prepared, out=out, development=development, init=init, hours=hours, batch=batch,
                objective=ObjectiveConfig(consistency=consistency, intermediate=intermediate),
                muon_rate=muon_rate, adam_rate=adam_rate, dropout=dropout, threads=threads, seed=seed,
            )
        )  # fmt: skip


if __name__ == "__main__":
    typer.run(cli)

"""Train the phone recogniser on prepared and aligned speech.

    # glibc: keep memory between steps
    export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296
    python recipes/finetune.py --prepared work/prepared --development work/prepared-dev \\
        --out runs/first --hours 400
    # then on CTC-CRF, or on your own speech
    python recipes/finetune.py --prepared work/prepared --init runs/first/average --loss ctc-crf \\
        --muon-rate 0.005 --adam-rate 4e-4 --out runs/second --hours 100

CTC on the phones that the alignment chose among the lexicon's pronunciations; beside it, with a falling
weight, the class of every frame and the phones before and after it, which tell the young network where each
sound is. `--loss ctc-crf` starts well from a model that was trained with CTC. `--consistency` and
`--intermediate` add losses that are off by default. Muon (Jordan et al. 2024) on the matrices, AdamW on the
rest, linear decay, an exponential average of the weights.

A CUDA GPU is used if there is one. It is fed best from waveforms (`prepare.py --waveforms`), which it turns
to features and augments itself:

    python recipes/finetune.py --prepared work/real --prepared work/synthetic --first-times 2 --waveforms \\
        --noises ~/phonebook-data/noise --seconds 480 --warp 0.5 --noise 0.5 --narrow 0.1 ...

Several processes, on as many GPUs or else on the processor, share the
batches and average their gradients; to step as often per hour of audio as one does they take smaller ones:

    accelerate launch --multi_gpu --num_processes 2 recipes/finetune.py --seconds 60 ...

`--hours` is the audio passed through the network in all. An interrupted run goes on when the same command is
given again. `--out` holds `last.pt` (everything needed to go on), `average/` (the averaged model, ready for
`asr --model`), `best/` (that of the lowest mean PER of the development sets), `losses.jsonl`, `judged.jsonl`,
`curves.png` and `events/` for TensorBoard. With one thread a process on the same processor, and as many
processes, it becomes the very model that it would have been without the interruption.
"""

from __future__ import annotations

import copy
import json
import math
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer

from asr.errors import one_line_errors
from asr.model.checkpoint import start_network
from asr.model.encoder import EncoderConfig, PhoneModel
from asr.phones import PhoneSet
from asr.training.batches import Batch, BatchConfig, BatchSource
from asr.training.ctc_crf import PhoneNgram, estimate_phone_ngram
from asr.training.feature_augment import FeatureAugmentConfig
from asr.training.journal import Journal, mean_rate
from asr.training.loop import Pace, end_together, make_accelerator, replace_model, save_state, train
from asr.training.objective import Loss, Objective, ObjectiveConfig
from asr.training.prepared import Alignments, Prepared
from asr.training.progress import Judge
from asr.training.stepper import StepConfig, Stepper
from asr.training.waveform_augment import WaveformAugmentConfig
from asr.training.waveform_batches import WaveformBatchConfig, WaveformSource

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, kw_only=True)
class Config:
    prepared: tuple[Path, ...]
    out: Path
    development: Path | None = None
    init: Path | None = None  # a model to start from, else random numbers
    hours: float = 400.0  # of audio passed in all
    encoder: EncoderConfig = field(default_factory=EncoderConfig)  # where `init` does not decide
    batch: BatchConfig = field(default_factory=BatchConfig)
    waveforms: WaveformBatchConfig | None = None  # then instead of `batch`
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    accumulate: int = 1  # batches of each process a step
    step: StepConfig = field(default_factory=StepConfig)
    dropout: float = 0.0
    average_decay: float = 0.999
    save_every_s: float = 60.0
    judge_every_hours: float = 25.0
    threads: int = 1


def main(config: Config) -> None:
    """Raises ValueError for folders that were not prepared and aligned, for an `init` or a `last.pt` that
    does not fit, and as `make_accelerator`."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.step.seed)
    accelerator = make_accelerator()
    first = accelerator.is_main_process
    phones = PhoneSet.read(Path(__file__).parents[1] / "asr" / "pretrained" / "phones.txt")
    network = start_network(config.init, config.encoder, phones, auxiliary=True)
    for block in network.encoder.blocks:
        block.dropout = config.dropout
    source = open_source(config, network.encoder.config.stride, accelerator.device)
    ngram = None
    if config.objective.loss is Loss.CTC_CRF:
        ngram = estimate_phone_ngram((source.targets(i) for i in source.usable), len(phones))
    network.phone_lm = None if ngram is None else ngram.probs.log()
    judge = Judge.open(config.development, phones) if config.development and first else None
    run = Run(config, network, phones, accelerator, ngram)
    if first:
        parameters = sum(p.numel() for p in network.parameters())
        devices = f"{accelerator.num_processes} x {accelerator.device.type}"
        print(f"{source.usage()}, {parameters / 1e6:.2f} M parameters, {devices}", file=sys.stderr)

    def judge_now_and_then() -> None:
        if judge is not None and run.stepper.hours - run.journal.hours_judged >= config.judge_every_hours:
            run.judge(judge)

    train(
        run, source, config.hours, config.save_every_s,
        accumulate=config.accumulate, after_step=judge_now_and_then,
    )  # fmt: skip
    if judge is not None and run.journal.hours_judged < round(run.stepper.hours, 3):
        run.judge(judge)
    elif first:
        run.journal.draw()
    end_together(accelerator)


def open_source(config: Config, stride: int, device: torch.device) -> BatchSource | WaveformSource:
    """Raises ValueError as `main` says of folders."""
    parts = [
        (Prepared.open(folder), Alignments.open(folder / "alignments.npz")) for folder in config.prepared
    ]
    if config.waveforms is not None:
        for folder, (prepared, alignments) in zip(config.prepared, parts, strict=True):
            try:
                alignments.check_of(prepared)
            except ValueError as error:
                raise ValueError(f"{folder}: {error}") from None
        return WaveformSource(parts, replace(config.waveforms, stride=stride), device)
    if len(parts) > 1:
        raise ValueError("several --prepared folders need --waveforms")
    return BatchSource(*parts[0], replace(config.batch, stride=stride))


class Run:
    """Network, optimisers and counters: all that `last.pt` holds."""

    def __init__(
        self,
        config: Config,
        network: PhoneModel,
        phones: PhoneSet,
        accelerator: Accelerator,
        ngram: PhoneNgram | None = None,
    ) -> None:
        self.config, self.phones, self.accelerator = config, phones, accelerator
        self.network = network.to(accelerator.device)
        self.objective = accelerator.prepare(Objective(self.network, config.objective, ngram))
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.stepper = Stepper(
            self.objective, self.network.encoder.blocks, accelerator, config.step, config.hours
        )
        if (config.out / "last.pt").exists():
            self._load()
        self.pace = Pace(self.stepper.hours)
        self.journal = Journal(config.out, self.stepper.steps)

    def step(self, batches: list[Batch]) -> dict[str, float]:
        progress = self.stepper.progress
        return self.stepper.step(batches, lambda batch, _: (batch, progress), self._follow)

    def _follow(self) -> None:
        """The average comes nearer to the network."""
        steps = self.stepper.steps
        decay = min(self.config.average_decay, (1 + steps) / (10 + steps))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - decay)

    def report(self, losses: dict[str, float]) -> None:
        steps, hours = self.stepper.steps, self.stepper.hours
        self.journal.add_losses(steps, hours, losses)
        per = {} if self.journal.per is None else {"PER": self.journal.per}
        line = self.pace.line(steps, hours, self.config.hours, losses | per)
        print(line, file=sys.stderr, flush=True)

    def judge(self, judge: Judge) -> None:
        """Keeps the averaged model as `best/` if its mean PER is the lowest so far."""
        rates = judge.phone_error_rates(self.average)
        steps, hours = self.stepper.steps, self.stepper.hours
        before = [mean_rate(line["per"]) for line in self.journal.rates if line["per"].keys() == rates.keys()]
        if mean_rate(rates) < min(before, default=math.inf):
            best = self.config.out / "best"
            replace_model(best, self.average, self.phones)
            line = {"hours": hours, "steps": steps, "mean": mean_rate(rates), "per": rates}
            (best / "judged.json").write_text(json.dumps(line) + "\n", encoding="utf-8")
        # The journal last: what a crash kept from it is judged again.
        self.journal.add_rates(steps, hours, rates)

    def save(self) -> None:
        config = replace(self.config, encoder=self.network.encoder.config)
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "config": json.dumps(asdict(config), default=str),
        } | self.stepper.state()
        save_state(state, self.config.out / "last.pt")
        replace_model(self.config.out / "average", self.average, self.phones)

    def _load(self) -> None:
        path = self.config.out / "last.pt"
        state = torch.load(path, map_location="cpu", weights_only=True)
        self._check_same(path, json.loads(state["config"]))
        try:
            self.network.load_state_dict(state["network"])
        except RuntimeError:
            raise ValueError(f"{path}: another network: give its --init or sizes, or another --out") from None
        self.average.load_state_dict(state["average"])
        self.stepper.load(state)

    def _check_same(self, path: Path, before: dict[str, Any]) -> None:
        """Rates and augmentation may change on the way; with these it would be another training."""
        config = self.config
        if bool(before.get("waveforms")) != bool(config.waveforms):
            raise ValueError(f"{path}: only a run with --waveforms goes on with it: take another --out")
        batch, its_batch = config.batch, before["batch"]
        options = [("--loss", before["objective"]["loss"], config.objective.loss)]
        if config.waveforms is not None:
            batch, its_batch = config.waveforms, before["waveforms"]
            options.append(("--first-times", its_batch["first_times"], batch.first_times))
            options.append(("--snippets", its_batch.get("snippets", 0.0), batch.snippets))
        options += [
            ("--seconds", its_batch["seconds"], batch.seconds),
            ("--seed", its_batch["seed"], batch.seed),
        ]
        for name, old, new in options:
            if old != new:
                raise ValueError(f"{path}: a run with {name} {old}: give that, or another --out")
        if before["batch"]["copies"] != config.batch.copies:
            raise ValueError(f"{path}: only a run with --consistency goes on with it: take another --out")


def cli(
    prepared: Annotated[
        list[Path], typer.Option(help="features and alignments; several folders with --waveforms")
    ],
    out: Annotated[Path, typer.Option(help="the run's folder; an interrupted run there goes on")],
    development: Annotated[
        Path | None, typer.Option(help="prepared development sets, to watch the PER")
    ] = None,
    init: Annotated[Path | None, typer.Option(help="a model folder to start from")] = None,
    hours: Annotated[float, typer.Option(help="audio to pass through the network, in hours")] = Config.hours,
    dim: Annotated[int, typer.Option(help="channels of a new encoder")] = EncoderConfig.dim,
    bottleneck: Annotated[int, typer.Option(help="and within its blocks")] = EncoderConfig.bottleneck,
    blocks: Annotated[int, typer.Option(help="how many of them")] = len(EncoderConfig.dilations),
    loss: Annotated[Loss, typer.Option(help="on the phones")] = ObjectiveConfig.loss,
    consistency: Annotated[
        float, typer.Option(help="weight of the agreement of two masked copies of each utterance: 0.2, or 0")
    ] = ObjectiveConfig.consistency,
    intermediate: Annotated[
        float, typer.Option(help="share of the CTC loss in the middle of the network: 0.3, or 0")
    ] = ObjectiveConfig.intermediate,
    seconds: Annotated[float, typer.Option(help="of audio in a batch")] = BatchConfig.seconds,
    accumulate: Annotated[
        int, typer.Option(min=1, help="batches of each process a step")
    ] = Config.accumulate,
    muon_rate: Annotated[
        float, typer.Option(help="learning rate of the blocks' matrices")
    ] = StepConfig.muon_rate,
    adam_rate: Annotated[float, typer.Option(help="learning rate of everything else")] = StepConfig.adam_rate,
    clip: Annotated[float, typer.Option(help="longest gradient")] = StepConfig.clip,
    dropout: Annotated[float, typer.Option(help="in the blocks' bottlenecks")] = Config.dropout,
    warp: Annotated[float, typer.Option(help="share of utterances with another vocal tract length")] = 0.0,
    noise: Annotated[float, typer.Option(help="share of utterances with noise or babble mixed in")] = 0.0,
    waveforms: Annotated[
        bool, typer.Option("--waveforms", help="make features, speeds and rooms on the device, for a GPU")
    ] = False,
    noises: Annotated[Path | None, typer.Option(help="with --waveforms: a folder with noise.tsv")] = None,
    lowest_snr: Annotated[
        float, typer.Option(help="with --waveforms: of the loudest noise, in dB")
    ] = WaveformAugmentConfig.snr_db[0],
    rooms: Annotated[float, typer.Option(help="with --waveforms: share of utterances in rooms")] = 0.4,
    first_times: Annotated[
        int, typer.Option(min=1, help="with --waveforms: how often an epoch takes the first folder's speech")
    ] = 1,
    snippets: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="with --waveforms: share of utterances of which a few words alone are heard"
        ),
    ] = 0.0,
    narrow: Annotated[float, typer.Option(help="share of utterances as over a telephone")] = 0.0,
    mel_width: Annotated[int, typer.Option(help="widest SpecAugment mask in mels")] = BatchConfig.mel_width,
    time_mask_scale: Annotated[
        float, typer.Option(help="times as many SpecAugment masks in time; with --consistency 2.5 is usual")
    ] = 1.0,
    judge_every_hours: Annotated[
        float, typer.Option(help="of audio between two judgements by the development sets")
    ] = Config.judge_every_hours,
    threads: Annotated[int, typer.Option(help="processor threads of each process")] = Config.threads,
    seed: Annotated[int, typer.Option(help="of weights, batches and masks")] = StepConfig.seed,
) -> None:
    """Train a phone recogniser."""
    augment = FeatureAugmentConfig(warp_probability=warp, noise_probability=noise, narrow_probability=narrow)
    with one_line_errors():
        if not time_mask_scale > 0:
            raise ValueError(f"--time-mask-scale must be above 0, not {time_mask_scale:g}")
        encoder = EncoderConfig.of_size(dim, bottleneck, blocks)
        if init is not None and encoder != EncoderConfig():
            raise ValueError("--dim, --bottleneck and --blocks are for a new encoder: --init brings its own")
        batch = BatchConfig(
            seconds=seconds, seed=seed, mel_width=mel_width, augment=augment, copies=2 if consistency else 1,
            time_every=max(1, round(BatchConfig.time_every / time_mask_scale)),
        )  # fmt: skip
        of_waveforms = WaveformBatchConfig(
            seconds=seconds, seed=seed, mels=(BatchConfig.mel_masks, mel_width),
            times=(batch.time_every, BatchConfig.time_width), noises=noises, first_times=first_times,
            snippets=snippets,
            augment=WaveformAugmentConfig(
                room=rooms, noise=noise, warp=warp, narrow=narrow,
                snr_db=(lowest_snr, WaveformAugmentConfig.snr_db[1]),
            ),
        )  # fmt: skip
        if waveforms and consistency:
            raise ValueError("--waveforms makes no copies for --consistency: take one or the other")
        quietest = WaveformAugmentConfig.snr_db[1]
        if not lowest_snr <= quietest:
            raise ValueError(f"--lowest-snr must be at most {quietest:g} dB, not {lowest_snr:g}")
        louder = lowest_snr != WaveformAugmentConfig.snr_db[0]
        if not waveforms and (noises is not None or louder or first_times > 1 or snippets):
            raise ValueError("--noises, --lowest-snr, --first-times and --snippets are for --waveforms")
        if noises is not None and not noise:
            raise ValueError("--noises needs --noise, the share of utterances that get one: 0.4")
        main(
            Config(
                prepared=tuple(prepared), out=out, development=development, init=init, hours=hours,
                batch=batch, waveforms=of_waveforms if waveforms else None, encoder=encoder,
                objective=ObjectiveConfig(loss=loss, consistency=consistency, intermediate=intermediate),
                step=StepConfig(muon_rate=muon_rate, adam_rate=adam_rate, clip=clip, seed=seed),
                accumulate=accumulate, dropout=dropout, judge_every_hours=judge_every_hours, threads=threads,
            )
        )  # fmt: skip


if __name__ == "__main__":
    typer.run(cli)

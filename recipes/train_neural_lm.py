"""Train the neural language model that chooses among the decoder's best hypotheses.

    # glibc: keep memory between steps
    export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296
    python recipes/train_neural_lm.py --data ~/phonebook-data --out runs/neural-lm
    asr transcribe call.wav --neural-lm runs/neural-lm/average

A small transformer over pieces of words, on the texts of train_lm.py: the same sentences are held out, and
those of development sets are left out. Muon (Jordan et al. 2024) on the matrices, AdamW on the rest, linear
decay, an exponential average of the weights. Other texts: --text FILE for each, one sentence a line. An
interrupted run goes on when the same command is given again; --init begins with the weights, sizes and pieces
of a model of other texts. --transcripts as for train_lm.py. `--out` holds `last.pt` (everything needed to go
on) and `average/`, the model. Sentences of more than 160 pieces are left out.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from torch import Tensor, nn

from asr.errors import one_line_errors
from asr.model.arithmetic import autocast
from asr.model.neural_lm import NeuralLM, NeuralLMConfig, load_neural_lm, save_neural_lm
from asr.training import lm_options
from asr.training.lm_text import (
    Exclusion,
    count_words,
    read_held_out,
    read_transcripts,
    thinned,
    training_sentences,
)
from asr.training.loop import make_optimizers, replace_files, save_state, set_rates
from asr.training.next_piece import next_piece_loss, perplexity
from asr.training.sentences import IGNORED, Corpus, SentenceBatches, encode, train_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Config:
    texts: tuple[Path, ...]
    out: Path
    exclude: tuple[Path, ...] = ()
    init: Path | None = None  # a model to start from, else random numbers
    network: NeuralLMConfig = field(default_factory=NeuralLMConfig)
    most_words: int | None = None  # of a text
    transcripts: tuple[Path, ...] = ()  # of speech, repeated until they have their share of the words
    transcripts_share: float = 0.05
    epochs: float = 1.1
    batch_pieces: int = 8192
    muon_rate: float = 0.02
    adam_rate: float = 3e-3
    warmup_steps: int = 200
    clip: float = 5.0  # longest gradient
    average_decay: float = 0.998
    held_out_every: int = 200
    judge_every: int = 5_000_000  # pieces
    save_every_s: float = 60.0
    seed: int = 1
    threads: int = 1


def main(config: Config) -> None:
    """Raises ValueError for texts without sentences, for another run in `out`, and as `load_neural_lm`."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    exclusion = Exclusion.read(config.exclude)
    shares = [1.0 for _ in config.texts]
    if config.most_words is not None:
        shares = [min(1.0, config.most_words / max(1, count_words(text))) for text in config.texts]

    def sentences() -> Iterator[str]:
        for text, share in zip(config.texts, shares, strict=True):
            yield from thinned(training_sentences(text, config.held_out_every, exclusion), share)

    if next(sentences(), None) is None:
        raise ValueError(f"{config.texts[0]}: no sentences in it")
    network, tokenizer = start(config, sentences)
    corpus = encode(sentences(), tokenizer)
    if config.transcripts:
        said = encode(read_transcripts(config.transcripts, exclusion), tokenizer)
        if not said.num_words:
            raise ValueError(f"{config.transcripts[0]}: no text that may be learnt")
        share = config.transcripts_share
        corpus = corpus.followed_by(said, round(corpus.num_words * share / (1 - share) / said.num_words))
    held_out = {
        text.name.split(".")[0]: encode(thinned(read_held_out(text, config.held_out_every), share), tokenizer)
        for text, share in zip(config.texts, shares, strict=True)
    }
    batches = SentenceBatches(corpus, config.batch_pieces, network.config.positions, config.seed)
    held_out = {name: corpus for name, corpus in held_out.items() if len(corpus.pieces)}
    run = Run(config, network, config.epochs * batches.num_targets, tokenizer.to_str())
    parameters = sum(p.numel() for p in run.network.parameters())
    sizes = f"{corpus.num_words / 1e6:.2f} M words, {len(corpus.pieces) / 1e6:.2f} M pieces"
    print(f"{sizes}, {parameters / 1e6:.2f} M parameters, {run.device.type}", file=sys.stderr)

    def write() -> None:
        run.save()
        replace_files(config.out / "average", lambda new: save_neural_lm(new, run.average, tokenizer))

    judged, saved = run.seen, time.monotonic()
    try:
        for losses in run.train(batches):
            if run.steps % 50 == 0:
                print(f"{run.line()}  loss {losses:.3f}", file=sys.stderr)
            if time.monotonic() - saved > config.save_every_s:
                write()
                saved = time.monotonic()
            if run.seen - judged > config.judge_every:
                run.judge(held_out)
                judged = run.seen
    except KeyboardInterrupt:
        if not run.updating:  # else some weights are new and some are old
            write()
        where = "the last save" if run.updating else "there"
        print(f"interrupted: the same command goes on from {where}", file=sys.stderr)
        raise SystemExit(130) from None
    write()
    run.judge(held_out)


def start(config: Config, sentences: Callable[[], Iterator[str]]) -> tuple[NeuralLM, Tokenizer]:
    """The network and its pieces at the beginning. Raises ValueError as `main`."""
    if config.init is not None:
        return load_neural_lm(config.init)
    tokenizer = train_tokenizer(sentences(), config.network.pieces)
    if (found := tokenizer.get_vocab_size()) != config.network.pieces:
        raise ValueError(f"the texts have {found} pieces, not {config.network.pieces}: give --pieces {found}")
    return NeuralLM(config.network), tokenizer


class Run:
    """Network, its average, optimisers and counters: all that `last.pt` holds."""

    def __init__(self, config: Config, network: NeuralLM, total: float, tokenizer: str) -> None:
        """`total`: pieces to be seen. `updating`: in the middle of a step, when nothing may be saved."""
        self.config, self.total, self.tokenizer = config, total, tokenizer
        self.updating = False
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = network.to(self.device)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizers = make_optimizers(
            self.network.blocks, self.network.parameters(), config.muon_rate, config.adam_rate
        )
        self.steps = self.seen = self.epoch = self.batch = 0
        if (config.out / "last.pt").exists():
            self._load()
        self._began, self._seen_then = time.monotonic(), self.seen

    def train(self, batches: SentenceBatches) -> Iterator[float]:
        """The loss of each step, until the end."""
        while self.seen < self.total:
            for inputs, targets in batches.epoch(self.epoch, self.batch):
                yield self._step(inputs.to(self.device), targets.to(self.device))
                if self.seen >= self.total:
                    return
            self.epoch, self.batch = self.epoch + 1, 0

    def _step(self, inputs: Tensor, targets: Tensor) -> float:
        config = self.config
        rates = (config.muon_rate, config.adam_rate)
        set_rates(self.optimizers, rates, self.steps, config.warmup_steps, self.seen / self.total)
        with autocast(self.device):
            loss = next_piece_loss(self.network, inputs, targets)
        loss.backward()
        self.updating = True
        nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.steps, self.batch = self.steps + 1, self.batch + 1
        self.seen += int((targets != IGNORED).sum())
        decay = min(config.average_decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for mean, new in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(new, 1 - decay)
        self.updating = False
        return loss.item()

    def line(self) -> str:
        speed = (self.seen - self._seen_then) / max(time.monotonic() - self._began, 1e-9)
        left_min = (self.total - self.seen) / max(speed, 1e-9) / 60
        done = f"step {self.steps}  {self.seen / 1e6:.2f} of {self.total / 1e6:.2f} M pieces"
        return f"{done}  {speed:.0f} pieces/s  {left_min:.0f} min left"

    def judge(self, held_out: dict[str, Corpus]) -> None:
        found = (f"{n} {perplexity(self.average, c, self.device):.1f}" for n, c in held_out.items())
        print(f"{self.seen / 1e6:.2f} M pieces: perplexity {', '.join(found)}", flush=True)

    def save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "counters": (self.steps, self.seen, self.epoch, self.batch),
            "made_for": self._made_for(),
        }
        save_state(state, self.config.out / "last.pt")

    def _made_for(self) -> dict[str, Any]:
        """What a run that goes on must share with the one before it."""
        config = self.config
        same = {
            "network": asdict(self.network.config),
            "batch_pieces": config.batch_pieces,
            "seed": config.seed,
        }
        return same | {"tokenizer": self.tokenizer}

    def _load(self) -> None:
        path = self.config.out / "last.pt"
        state = torch.load(path, map_location=self.device)
        if state["made_for"] != self._made_for():
            raise ValueError(f"{path}: of other texts, sizes or batches: take another --out")
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.steps, self.seen, self.epoch, self.batch = state["counters"]
        print(f"going on from step {self.steps}, {self.seen / 1e6:.2f} M pieces", file=sys.stderr)


def cli(
    out: Annotated[Path, typer.Option(help="folder of the run")],
    data: lm_options.Data = None,
    text: lm_options.Texts = None,
    exclude: lm_options.Exclude = None,
    init: Annotated[
        Path | None, typer.Option(help="folder of a model to start from: its weights, sizes and pieces")
    ] = None,
    pieces: Annotated[int, typer.Option(help="of words, in the vocabulary")] = NeuralLMConfig.pieces,
    dim: Annotated[int, typer.Option(help="channels")] = NeuralLMConfig.dim,
    layers: Annotated[int, typer.Option(min=1)] = NeuralLMConfig.layers,
    heads: Annotated[
        int, typer.Option(min=1, help="of attention; they share the channels")
    ] = NeuralLMConfig.heads,
    most_words: Annotated[
        int | None, typer.Option(min=1, help="of each text; of a longer one, sentences from all over it")
    ] = Config.most_words,
    transcripts: lm_options.Transcripts = None,
    transcripts_share: Annotated[
        float, typer.Option(min=0, max=0.9, help="of the words; these are repeated as often as it takes")
    ] = Config.transcripts_share,
    epochs: Annotated[float, typer.Option(help="how often every sentence is seen")] = Config.epochs,
    batch_pieces: Annotated[int, typer.Option(help="pieces of a batch")] = Config.batch_pieces,
    muon_rate: Annotated[float, typer.Option(help="learning rate of matrices")] = Config.muon_rate,
    adam_rate: Annotated[float, typer.Option(help="of all else")] = Config.adam_rate,
    held_out_every: lm_options.HeldOutEvery = Config.held_out_every,
    seed: Annotated[int, typer.Option(help="of weights and batches")] = Config.seed,
    threads: Annotated[int, typer.Option(min=1)] = Config.threads,
) -> None:
    """Train a neural language model from text."""
    texts, excluded = lm_options.texts_and_exclusions(data, text, exclude)
    with one_line_errors():
        network = NeuralLMConfig(pieces=pieces, dim=dim, layers=layers, heads=heads)
        if init is not None and network != NeuralLMConfig():
            raise ValueError(
                "--pieces, --dim, --layers and --heads are for a new model: --init brings its own"
            )
        main(
            Config(
                texts=texts,
                out=out,
                exclude=excluded,
                init=init,
                network=network,
                most_words=most_words,
                transcripts=tuple(transcripts or ()),
                transcripts_share=transcripts_share,
                epochs=epochs,
                batch_pieces=batch_pieces,
                muon_rate=muon_rate,
                adam_rate=adam_rate,
                held_out_every=held_out_every,
                seed=seed,
                threads=threads,
            )
        )


if __name__ == "__main__":
    typer.run(cli)

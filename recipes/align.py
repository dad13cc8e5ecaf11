"""Which sound is where: align all prepared speech to its transcripts, from nothing.

    python recipes/align.py --prepared work/prepared --lexicon lexicon/en.txt

A flat start: every utterance is cut evenly into the three states of its phones, Gaussian mixtures are
estimated on that, realign, and so on, over the shortest utterances first, with more and more Gaussians. The
result, `alignments.npz` beside the features, holds for every utterance the pronunciations that were really
said and the state of each frame. Fifteen hours take about five minutes on one core.
"""

from __future__ import annotations

import functools
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from asr.errors import one_line_errors
from asr.g2p import pronounce
from asr.lexicon import Lexicon
from asr.phones import PhoneSet
from asr.text import normalize
from asr.training.alignment import STATES_PER_PHONE, StateGraph, align, build_graph, phones_of, uniform
from asr.training.gmm import Mixtures, cepstra
from asr.training.prepared import Alignments, Prepared


@dataclass(frozen=True, kw_only=True)
class Config:
    prepared: Path
    lexicon: Path
    passes: int = 25
    split_after: tuple[int, ...] = (7, 11, 15, 19)  # 2, 4, 8, 16 Gaussians a state
    first_utterances: int = 2_000  # grows evenly to all_utterances
    last_utterances: int = 6_000
    min_score: float = -130.0  # log-likelihood a frame; below it transcript and sound do not belong together


def graphs_of(prepared: Prepared, lexicon: Path, phones: PhoneSet) -> list[StateGraph | None]:
    """The state graph of each transcript; None where there is none."""
    known = Lexicon.read([lexicon], phones).pronunciations()
    texts = [normalize(utterance.text).split() for utterance in prepared.utterances]
    missing = sorted({word for words in texts for word in words} - known.keys())
    guessed = pronounce(missing, phones)
    known |= {word: found for word, found in zip(missing, guessed, strict=True) if found}
    print(f"{len(missing)} words of the transcripts come from G2P, not from the lexicon", file=sys.stderr)
    encode = functools.cache(phones.encode)
    return [
        build_graph([[encode(variant) for variant in known[word]] for word in words])
        if words and all(word in known for word in words)
        else None
        for words in texts
    ]


def train(
    config: Config, features: list[np.ndarray], graphs: list[StateGraph | None], num_classes: int
) -> Mixtures:
    usable = [
        i
        for i, graph in enumerate(graphs)
        if graph is not None and len(features[i]) > len(graph.classes) // 2
    ]
    usable.sort(key=lambda i: len(features[i]))
    usable = [i for i in usable if len(features[i]) > 100] or usable
    model: Mixtures | None = None
    for step in range(config.passes):
        share = step / max(config.passes - 1, 1)
        count = int(config.first_utterances + share * (config.last_utterances - config.first_utterances))
        began = time.monotonic()
        frames, labels, total = [], [], 0.0
        for i in usable[:count]:
            graph = graphs[i]
            assert graph is not None
            try:
                if model is None:
                    path = uniform(graph, len(features[i]))
                else:
                    path, score = align(graph, model.scores(features[i]))
                    total += score
            except ValueError:
                continue
            frames.append(features[i])
            labels.append(graph.classes[path])
        x, y = np.concatenate(frames), np.concatenate(labels)
        if model is None:
            model = Mixtures.from_labels(x, y, num_classes)
        else:
            model = model.update(x, y)
            if step in config.split_after:
                model = model.split()
        print(
            f"pass {step + 1}: {len(frames)} utterances, {total / len(x):.2f} a frame, "
            f"{time.monotonic() - began:.0f} s",
            file=sys.stderr,
        )
    assert model is not None
    return model


def main(config: Config) -> None:
    phones = PhoneSet.read(Path(__file__).parents[1] / "asr" / "pretrained" / "phones.txt")
    prepared = Prepared.open(config.prepared)
    graphs = graphs_of(prepared, config.lexicon, phones)
    features = [cepstra(prepared.frames(i)) for i in range(len(graphs))]
    model = train(config, features, graphs, STATES_PER_PHONE * len(phones))

    classes = np.zeros(sum(len(f) for f in features), np.uint8)
    chosen: list[np.ndarray] = []
    at = failed = 0
    for graph, x in zip(graphs, features, strict=True):
        targets = np.zeros(0, np.int16)
        if graph is not None and len(x):
            try:
                path, score = align(graph, model.scores(x))
                if score / len(x) >= config.min_score:
                    targets = phones_of(graph, path)[0].astype(np.int16)
                    classes[at : at + len(x)] = graph.classes[path]
            except ValueError:
                pass
        failed += not len(targets)
        chosen.append(targets)
        at += len(x)
    offsets = np.zeros(len(chosen) + 1, np.int64)
    np.cumsum([len(targets) for targets in chosen], out=offsets[1:])
    out = config.prepared / "alignments.npz"
    Alignments(np.concatenate(chosen), offsets, classes).save(out)
    print(f"{out}: {len(chosen) - failed:,} utterances aligned, {failed} not, {len(phones)} phones")


def cli(
    prepared: Annotated[Path, typer.Option(help="what recipes/prepare.py wrote")],
    lexicon: Annotated[Path, typer.Option(help="pronunciations")] = Path("lexicon/en.txt"),
    passes: Annotated[int, typer.Option(help="Viterbi passes")] = Config.passes,
) -> None:
    """Align speech to transcripts from a flat start."""
    with one_line_errors():
        main(Config(prepared=prepared, lexicon=lexicon, passes=passes))


if __name__ == "__main__":
    typer.run(cli)

"""Which sound is where: align all prepared speech to its transcripts, from nothing.

    python recipes/align.py --prepared work/prepared
    python recipes/align.py --prepared work/mine --lexicon names.txt --lexicon drugs.txt

A flat start: every utterance is cut evenly into the three states of its phones, Gaussian mixtures are
estimated on that, realign, and so on, over the shortest utterances first, with more and more Gaussians. The
result, `alignments.npz` beside the features, holds for every utterance the pronunciations that were really
said and the state of each frame. Fifteen hours take about five minutes on one core.

A word may be said in all ways that the base lexicon, the user's own and the `--lexicon` files have for it.

Of synthesised speech the phones are known. They are taken as they are, at once, and the frames stay without
labels:

    python recipes/align.py --prepared work/synthetic --spoken synthetic/manifest.phones.tsv
"""

from __future__ import annotations

import csv
import functools
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from asr.errors import one_line_errors
from asr.phones import PhoneSet
from asr.training.alignment import STATES_PER_PHONE, StateGraph, align, build_graph, phones_of, uniform
from asr.training.gmm import Mixtures, cepstra
from asr.training.prepared import UNLABELLED, Alignments, Prepared
from asr.training.transcripts import guess_missing, lexicon_files, read_pronunciations, words_of


@dataclass(frozen=True, kw_only=True)
class Config:
    prepared: Path
    lexicon: Sequence[Path] = ()  # beside the base lexicon
    user_lexicon: bool = True
    spoken: Path | None = None  # the table of phones that recipes/synthesize.py wrote
    passes: int = 25
    split_after: tuple[int, ...] = (7, 11, 15, 19)  # 2, 4, 8, 16 Gaussians a state
    first_utterances: int = 2_000  # grows evenly to all_utterances
    last_utterances: int = 6_000
    min_score: float = -130.0  # log-likelihood a frame; below it transcript and sound do not belong together


def graphs_of(prepared: Prepared, lexicons: Sequence[Path], phones: PhoneSet) -> list[StateGraph | None]:
    """The state graph of each transcript; None where there is none."""
    known = read_pronunciations(lexicons, phones)
    texts = words_of(prepared)
    missing = guess_missing(known, texts, phones)
    print(f"{missing} words of the transcripts come from G2P, not from a lexicon", file=sys.stderr)
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
    """Raises ValueError where there is nothing to estimate from."""
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
        if not frames:
            raise ValueError("no utterance is long enough for its text")
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
    """Raises ValueError for a folder that was not prepared or has no speech with texts, for lexicons that are
    not there or have bad lines."""
    phones = PhoneSet.read(Path(__file__).parents[1] / "asr" / "pretrained" / "phones.txt")
    prepared = Prepared.open(config.prepared)
    if config.spoken is not None:
        return write(config, prepared, *known_phones(config.spoken, prepared, phones))
    graphs = graphs_of(prepared, lexicon_files(config.lexicon, config.user_lexicon), phones)
    if not any(graphs):
        raise ValueError(f"{config.prepared}: no utterance has a text whose words can be pronounced")
    features = [cepstra(prepared.frames(i)) for i in range(len(graphs))]
    model = train(config, features, graphs, STATES_PER_PHONE * len(phones))

    classes = np.zeros(sum(len(f) for f in features), np.uint8)
    chosen: list[np.ndarray] = []
    word_starts: list[np.ndarray] = []
    at = 0
    for graph, x in zip(graphs, features, strict=True):
        targets, starts = np.zeros(0, np.int16), np.zeros(0, bool)
        if graph is not None and len(x):
            try:
                path, score = align(graph, model.scores(x))
                if score / len(x) >= config.min_score:
                    heard, words = phones_of(graph, path)
                    targets, starts = heard.astype(np.int16), np.diff(words, prepend=-1) != 0
                    classes[at : at + len(x)] = graph.classes[path]
            except ValueError:
                pass
        chosen.append(targets)
        word_starts.append(starts)
        at += len(x)
    write(config, prepared, chosen, word_starts, classes)


def known_phones(
    table: Path, prepared: Prepared, phones: PhoneSet
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """For each utterance its phones and which of them begin a word, none where the table does not have it,
    and frames without labels. Raises ValueError for another table, and for one that names a recording twice
    or none of these."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if not {"path", "phones"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{table}: no columns path and phones: give what recipes/synthesize.py wrote")
        known: dict[str, list[list[int]]] = {}  # by word
        for line, row in enumerate(rows, 2):
            name = Path(row["path"]).stem
            if name in known:
                raise ValueError(f"{table}:{line}: a second recording named {name}: they need other names")
            try:
                words = (phones.encode(word.split()) for word in (row["phones"] or "").split("|"))
                known[name] = [word for word in words if word]
            except ValueError as error:
                raise ValueError(f"{table}:{line}: {error}") from None
    if not any(utterance.id in known for utterance in prepared.utterances):
        raise ValueError(f"{table}: knows none of the prepared recordings: give the table of these")
    said = [known.get(utterance.id, []) for utterance in prepared.utterances]
    chosen = [np.array([phone for word in words for phone in word], np.int16) for words in said]
    starts = [np.array([k == 0 for word in words for k in range(len(word))], bool) for words in said]
    num_frames = sum(len(prepared.frames(i)) for i in range(len(chosen)))
    return chosen, starts, np.full(num_frames, UNLABELLED, np.uint8)


def write(
    config: Config,
    prepared: Prepared,
    chosen: list[np.ndarray],
    word_starts: list[np.ndarray],
    classes: np.ndarray,
) -> None:
    offsets = np.zeros(len(chosen) + 1, np.int64)
    np.cumsum([len(targets) for targets in chosen], out=offsets[1:])
    out = config.prepared / "alignments.npz"
    phones, starts = np.concatenate(chosen), np.concatenate(word_starts)
    Alignments(phones, offsets, classes, prepared.digest(), starts).save(out)
    failed = sum(not len(targets) for targets in chosen)
    print(f"{out}: {len(chosen) - failed:,} utterances aligned, {failed} not")


def cli(
    prepared: Annotated[Path, typer.Option(help="what recipes/prepare.py wrote")],
    lexicon: Annotated[
        list[Path] | None, typer.Option(help="more pronunciations, as often as you like")
    ] = None,
    user_lexicon: Annotated[
        bool, typer.Option("--user-lexicon/--no-user-lexicon", help="use your own words (user.txt)")
    ] = True,
    spoken: Annotated[
        Path | None, typer.Option(help="table of the phones that were spoken: manifest.phones.tsv")
    ] = None,
    passes: Annotated[int, typer.Option(help="Viterbi passes")] = Config.passes,
) -> None:
    """Align speech to transcripts from a flat start."""
    with one_line_errors():
        if spoken is not None and lexicon:
            raise ValueError("--spoken says the phones themselves: without --lexicon")
        main(
            Config(
                prepared=prepared,
                lexicon=lexicon or (),
                user_lexicon=user_lexicon,
                spoken=spoken,
                passes=passes,
            )
        )


if __name__ == "__main__":
    typer.run(cli)

"""Estimate, mix and prune the word language model, and measure each step on held-out sentences.

    python recipes/train_lm.py --data ~/phonebook-data --lexicon lexicon/en.txt --unseen-share 0.005 \\
        --transcripts ~/phonebook-data/commonvoice/train.tsv ... --min-count 2 --max-ngrams 5000000 \\
        --out asr/pretrained/lm.ngrams.xz

One model for each text, interpolated modified Kneser-Ney (lmplz makes it where it is installed); the weights
of the mixture minimise the mean log-perplexity over the held-out parts of all texts, each counting the same,
so that no text suffers for another; entropy pruning makes the mixture small. One sentence in 200 is held out
and stays out of the shipped model too. Other texts: --text FILE for each, one sentence a line. --without FILE
makes a model that has never met certain words, to try what adding them does. The lexicon's words that no text
has share --unseen-share of the words out of context, each as often as English has it (wordfreq). Texts are
written; what is said to a recogniser, digits for example, the transcripts of speech tell: --transcripts
MANIFEST for each, which have --transcripts-share of the mixture, however few they are. --min-count 2 leaves
out what a text has once of the longest n-grams: five in six, and pruning would take them anyway. Takes a
quarter of an hour for 160 M words, beside other work.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from asr.decoder.ngram import read_ngrams
from asr.decoder.packed import SUFFIX, arpa_lines, pack
from asr.errors import one_line_errors
from asr.training import lm_options
from asr.training.kneser_ney import estimate, model_words
from asr.training.lm_mix import mix, with_unseen
from asr.training.lm_prune import prune
from asr.training.lm_tables import NgramModel, read_arpa, write_arpa
from asr.training.lm_text import (
    Exclusion,
    frequent_words,
    lexicon_words,
    read_held_out,
    read_transcripts,
    training_sentences,
)
from asr.training.word_frequencies import word_frequencies

# Of the embedded model.
EMBEDDED_UNSEEN_SHARE, EMBEDDED_MIN_COUNT, EMBEDDED_NGRAMS = 0.005, 2, 5_000_000
PACKED_STEP = 5  # hundredths of log10, where --out is packed


@dataclass(frozen=True, kw_only=True)
class Config:
    texts: tuple[Path, ...]
    out: Path
    exclude: tuple[Path, ...] = ()
    lexicon: Path | None = None  # its words are the vocabulary; else those that occur twice
    transcripts: tuple[Path, ...] = ()  # one more text, which has a fixed share of the mixture
    transcripts_share: float = 0.05
    without: Path | None = None  # lexicon or list: sentences with one of these words are not read
    unseen_share: float = 0.0  # of words that no text has
    order: int = 3
    min_count: int = 1  # of the n-grams of the highest order, in a text
    max_ngrams: int = 3_000_000  # 0: keep all
    decimals: int = 2  # of the log10 probabilities written
    held_out_every: int = 200
    use_lmplz: bool = True


@dataclass(frozen=True, kw_only=True)
class Scores:
    """log10 P of the known words and sentence ends of a held-out text; its words, and the unknown ones."""

    log_probs: np.ndarray
    num_words: int
    num_unknown: int

    @property
    def perplexity(self) -> float:
        return float(10 ** -self.log_probs.mean())


def unwanted_words(config: Config) -> frozenset[str]:
    return frozenset(() if config.without is None else lexicon_words(config.without))


def estimate_with_lmplz(
    sentences: Iterator[str], vocabulary: Sequence[str], order: int, min_count: int = 1
) -> NgramModel:
    with tempfile.TemporaryDirectory() as folder:
        words, arpa = Path(folder) / "words.txt", Path(folder) / "lm.arpa"
        words.write_text("\n".join(vocabulary), encoding="utf-8")
        command = ["lmplz", "--order", str(order), "--temp_prefix", f"{folder}/", "--discount_fallback"]
        command += ["--prune", *["0"] * (order - 1), str(min_count - 1)]
        command += ["--memory", "30%", "--limit_vocab_file", str(words), "--arpa", str(arpa)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            process.stdin.writelines(sentence + "\n" for sentence in sentences)
            _, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"lmplz failed:\n{errors}")
        return read_arpa(arpa, model_words(vocabulary))


def score(model: NgramModel, texts: Sequence[Sequence[str]], decimals: int) -> list[Scores]:
    """As `score_arpa`, with the model as it would be written."""
    with tempfile.TemporaryDirectory() as folder:
        write_arpa(model, f"{folder}/lm.arpa", decimals)
        return score_arpa(f"{folder}/lm.arpa", texts)


def score_arpa(path: str, texts: Sequence[Sequence[str]]) -> list[Scores]:
    """What KenLM makes of the held-out texts."""
    import kenlm

    options = kenlm.Config()
    options.show_progress = False
    options.arpa_complain = kenlm.ARPALoadComplain.NONE
    judge = kenlm.Model(path, options)
    scores = []
    for sentences in texts:
        tokens = [token for sentence in sentences for token in judge.full_scores(sentence)]
        known = np.array([log_prob for log_prob, _, unknown in tokens if not unknown])
        num_words = len(tokens) - len(sentences)
        scores.append(Scores(log_probs=known, num_words=num_words, num_unknown=len(tokens) - len(known)))
    return scores


def best_weights(scores: Sequence[Sequence[Scores]], iterations: int = 100) -> np.ndarray:
    """float64 (models): the weights that minimise the mean over texts of the mixture's log-perplexity.

    scores: for each model its scores of each text. By expectation maximisation: the aim is concave.
    """
    probs = [
        10 ** np.stack(of_text) for of_text in zip(*([s.log_probs for s in m] for m in scores), strict=True)
    ]
    weights = np.full(len(scores), 1 / len(scores))
    for _ in range(iterations):
        shares = [(weights[:, None] * p / (weights @ p)).mean(axis=1) for p in probs]
        weights = np.mean(shares, axis=0)
    return weights / weights.sum()


def mixture_perplexities(scores: Sequence[Sequence[Scores]], weights: np.ndarray) -> list[float]:
    by_text = zip(*([s.log_probs for s in m] for m in scores), strict=True)
    return [float(10 ** -np.log10(weights @ 10 ** np.stack(of_text)).mean()) for of_text in by_text]


def write(model: NgramModel, config: Config, held_out: Sequence[Sequence[str]]) -> list[Scores]:
    """As ARPA, or packed if it is to be named so; and how good that file is."""
    if not config.out.name.endswith(SUFFIX):
        write_arpa(model, config.out, config.decimals)
        return score(model, held_out, config.decimals)
    with tempfile.TemporaryDirectory() as folder:
        arpa = Path(folder) / "lm.arpa"
        write_arpa(model, arpa, decimals=6)
        config.out.write_bytes(pack(*read_ngrams(arpa.read_bytes(), str(arpa)), PACKED_STEP))
        with arpa.open("w", encoding="utf-8") as file:
            file.writelines(arpa_lines(*read_ngrams(config.out.read_bytes(), str(config.out))))
        return score_arpa(str(arpa), held_out)


def size_of(model: NgramModel) -> str:
    return " / ".join(f"{size:,}" for size in model.sizes)


def main(config: Config) -> None:
    start = time.perf_counter()

    def tell(message: str) -> None:
        print(f"[{time.perf_counter() - start:4.0f} s] {message}", file=sys.stderr)

    def row(name: str, values: Sequence[float], rest: str = "") -> None:
        mean = 10 ** np.log10(values).mean()
        print(f"| {name} | {' | '.join(f'{value:.1f}' for value in (*values, mean))} | {rest} |", flush=True)

    frequencies = word_frequencies(0.0) if config.unseen_share else {}
    exclusion = Exclusion.read(config.exclude)
    held_out = [read_held_out(text, config.held_out_every) for text in config.texts]
    for text, sentences in zip(config.texts, held_out, strict=True):
        if not sentences:
            raise ValueError(
                f"{text}: too short to hold out one in {config.held_out_every}: lower --held-out-every"
            )
    unwanted = unwanted_words(config)
    # Before the long work, so that a wrong name is told at once.
    said = read_transcripts(config.transcripts, exclusion, unwanted)
    if config.lexicon is not None:
        vocabulary = [word for word in lexicon_words(config.lexicon) if word not in unwanted]
    else:
        vocabulary = frequent_words(
            training_sentences(t, config.held_out_every, exclusion, unwanted) for t in config.texts
        )
    tell(f"{len(vocabulary):,} words; held out {' and '.join(f'{len(s):,}' for s in held_out)} sentences")

    names = [text.name.split(".")[0] for text in config.texts]
    print(f"| model | {' | '.join(names)} | mean | n-grams |\n|{'---|' * (len(names) + 3)}")
    lmplz = config.use_lmplz and shutil.which("lmplz") is not None
    models, scores = [], []
    for name, text in zip(names, config.texts, strict=True):
        exclusion.dropped = 0
        sentences = training_sentences(text, config.held_out_every, exclusion, unwanted)
        make = estimate_with_lmplz if lmplz else estimate
        models.append(make(sentences, vocabulary, config.order, min_count=config.min_count))
        scores.append(score(models[-1], held_out, decimals=6))
        tell(f"{text}: {size_of(models[-1])} n-grams; {exclusion.dropped:,} forbidden sentences dropped")
        row(f"{name} alone", [s.perplexity for s in scores[-1]], size_of(models[-1]))
    unknown = " and ".join(f"{s.num_unknown / s.num_words:.3%} of {s.num_words:,}" for s in scores[0])

    model = models[0]
    if len(models) > 1:
        if len(models) == 2:
            for weight in np.arange(1, 10) / 10:
                weights = np.array([weight, 1 - weight])
                row(
                    f"{weight:.1f} {names[0]} + {1 - weight:.1f} {names[1]}",
                    mixture_perplexities(scores, weights),
                )
        weights = best_weights(scores)
        model = mix(models, weights.tolist())
        models.clear()
        best = " + ".join(f"{weight:.3f} {name}" for weight, name in zip(weights, names, strict=True))
        tell(f"mixed: {best}")
        row(best, [s.perplexity for s in score(model, held_out, decimals=6)], size_of(model))
    if config.unseen_share:
        before, model = model, with_unseen(model, frequencies, config.unseen_share)
        if model is before:
            tell("no word of the lexicon that no text has is known elsewhere: nothing is shared")
        row("with unseen words", [s.perplexity for s in score(model, held_out, decimals=6)], size_of(model))
    if config.transcripts:
        share = config.transcripts_share
        model = mix([model, estimate(said, vocabulary, config.order)], [1 - share, share])
        tell(f"{share:g} of {len(said):,} transcripts, {sum(len(s.split()) for s in said):,} words")
        row("with transcripts", [s.perplexity for s in score(model, held_out, decimals=6)], size_of(model))
    if config.max_ngrams:
        model = prune(model, config.max_ngrams)
        tell(f"pruned: {size_of(model)}")
        row("pruned", [s.perplexity for s in score(model, held_out, decimals=6)], size_of(model))
    final = [s.perplexity for s in write(model, config, held_out)]
    row(config.out.name, final, f"{config.out.stat().st_size:,} bytes")
    print(f"\nUnknown words held out: {unknown}.")
    tell(f"wrote {config.out}")


def cli(
    out: Annotated[
        Path, typer.Option(help="the ARPA file to write; .gz and .xz compress it, .ngrams.xz packs it")
    ],
    data: lm_options.Data = None,
    text: lm_options.Texts = None,
    exclude: lm_options.Exclude = None,
    lexicon: Annotated[Path | None, typer.Option(help="lexicon whose words are the vocabulary")] = None,
    without: Annotated[
        Path | None,
        typer.Option(help="lexicon or word list: leave out its words and the sentences with them"),
    ] = None,
    transcripts: lm_options.Transcripts = None,
    transcripts_share: Annotated[
        float, typer.Option(min=0, max=0.9, help="of these in the mixture")
    ] = Config.transcripts_share,
    unseen_share: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.5,
            help="share of all words that those have which are in the lexicon and in no text: 0.03",
        ),
    ] = Config.unseen_share,
    order: Annotated[int, typer.Option(min=2, max=5, help="words in the longest n-gram")] = Config.order,
    min_count: Annotated[
        int,
        typer.Option(min=1, help="of the longest n-grams of each text leave out those that occur less often"),
    ] = Config.min_count,
    max_ngrams: Annotated[
        int, typer.Option(help="prune to so many n-grams in all; 0 keeps all")
    ] = Config.max_ngrams,
    decimals: Annotated[
        int, typer.Option(min=1, max=8, help="of the log10 probabilities of an ARPA file")
    ] = Config.decimals,
    held_out_every: lm_options.HeldOutEvery = Config.held_out_every,
    lmplz: Annotated[bool, typer.Option(help="let lmplz estimate where it is installed")] = Config.use_lmplz,
) -> None:
    """Train a word n-gram model from text."""
    texts, excluded = lm_options.texts_and_exclusions(data, text, exclude)
    with one_line_errors():
        main(
            Config(
                texts=texts,
                out=out,
                exclude=excluded,
                lexicon=lexicon,
                transcripts=tuple(transcripts or ()),
                transcripts_share=transcripts_share,
                without=without,
                unseen_share=unseen_share,
                order=order,
                min_count=min_count,
                max_ngrams=max_ngrams,
                decimals=decimals,
                held_out_every=held_out_every,
                use_lmplz=lmplz,
            )
        )


if __name__ == "__main__":
    typer.run(cli)

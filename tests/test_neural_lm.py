"""The neural language model: against its definition, as a tree of texts, on disk, and what it learns."""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import typer
from reference.transformer import next_piece_log_probs
from tokenizers import Tokenizer
from typer.testing import CliRunner

from asr.model import text_scorer
from asr.model.neural_lm import SENTENCE, NeuralLM, NeuralLMConfig, load_neural_lm, save_neural_lm
from asr.model.text_scorer import TextScorer
from asr.training.lm_text import thinned
from asr.training.next_piece import next_piece_loss, perplexity
from asr.training.sentences import IGNORED, SentenceBatches, encode, train_tokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))
import train_neural_lm

TEXT = ["the cat sat on the mat", "the dog sat on the cat", "a cat can see a dog", "the mat"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXT * 3, 30)


def random_network(pieces: int = 30, seed: int = 0, positions: int = 160) -> NeuralLM:
    """No weight is as it was initialised: zeros would hide what they multiply."""
    torch.manual_seed(seed)
    config = NeuralLMConfig(pieces=pieces, dim=16, layers=2, heads=2, positions=positions)
    network = NeuralLM(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def weights_of(network: NeuralLM) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in network.state_dict().items()}


def exact(scorer: TextScorer) -> TextScorer:
    """In float32, whatever the hardware is good at."""
    scorer._half = False
    return scorer


@pytest.mark.parametrize("positions", [160, 5])  # the second: sentences longer than that
def test_texts_score_as_defined(tokenizer: Tokenizer, positions: int) -> None:
    network = random_network(positions=positions)
    weights = weights_of(network)
    texts = [*(t.split() for t in TEXT), [], ["the"], ["the", "cat"], ["zebra", "the"], ["the", "cat"]]
    found = exact(TextScorer(network, tokenizer, CPU)).log_probs(texts)
    for text, scores in zip(texts, found, strict=True):
        by_word = [tokenizer.encode(word).ids for word in text]
        pieces = list(itertools.chain(*by_word))
        table = next_piece_log_probs(weights, 2, pieces)
        steps = table[np.arange(len(pieces) + 1), [*pieces, SENTENCE]]
        ends = np.cumsum([0, *map(len, by_word), 1])
        assert scores == pytest.approx([steps[a:b].sum() for a, b in itertools.pairwise(ends)], abs=1e-3)


def test_a_text_scores_the_same_in_any_company(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = exact(TextScorer(random_network(), tokenizer, CPU))
    rng = np.random.default_rng(1)
    texts = [
        [str(w) for w in rng.choice(["the", "cat", "dog", "mat"], rng.integers(0, 9))] for _ in range(60)
    ]
    alone = [scorer.log_probs([text])[0] for text in texts]
    for nodes in (512, 40):  # one tree, and many
        monkeypatch.setattr(text_scorer, "_NODES", nodes)
        for one, other in zip(alone, scorer.log_probs(texts), strict=True):
            assert one == pytest.approx(other, abs=1e-4)
    assert scorer.log_probs([]) == []


def test_an_untrained_network_finds_everything_equally_likely(tokenizer: Tokenizer) -> None:
    network = NeuralLM(NeuralLMConfig(pieces=30, dim=16, layers=2, heads=2))
    torch.nn.init.zeros_(network.embed.weight)
    corpus = encode(TEXT, tokenizer)
    steps = len(corpus.pieces) + len(TEXT)
    words = sum(len(text.split()) for text in TEXT) + len(TEXT)
    assert perplexity(network, corpus, CPU) == pytest.approx(30 ** (steps / words), rel=1e-4)


def test_perplexity_is_that_of_the_scores(tokenizer: Tokenizer) -> None:
    network = random_network(seed=3)
    scores = exact(TextScorer(network, tokenizer, CPU)).log_probs([t.split() for t in TEXT])
    expected = math.exp(-np.concatenate(scores).mean())
    assert perplexity(network, encode(TEXT, tokenizer), CPU) == pytest.approx(expected, rel=1e-4)


def test_the_loss_and_its_gradients_are_those_of_cross_entropy(tokenizer: Tokenizer) -> None:
    network = random_network(seed=2)
    corpus = encode(TEXT * 40, tokenizer)  # more targets than are worked on at a time
    inputs, targets = corpus.batch(np.arange(160))
    ours = next_piece_loss(network, inputs, targets)
    (3 * ours).backward()
    slopes = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    n = inputs.shape[1]
    hidden = network(inputs, torch.arange(n), torch.ones(n, n, dtype=torch.bool).tril())
    theirs = F.cross_entropy(network.logits(hidden).flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    (3 * theirs).backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    for ours_p, p in zip(slopes, network.parameters(), strict=True):
        assert torch.allclose(ours_p, p.grad, atol=1e-4)


def test_a_corpus_follows_another(tokenizer: Tokenizer) -> None:
    first, second = encode(["a b", "c"], tokenizer), encode(["b b a"], tokenizer)
    together = first.followed_by(second, 2)
    alone = encode(["a b", "c", "b b a", "b b a"], tokenizer)
    assert together.num_words == alone.num_words == 9
    assert np.array_equal(together.pieces, alone.pieces) and together.pieces.dtype == alone.pieces.dtype
    assert np.array_equal(together.offsets, alone.offsets)


def test_an_epoch_has_every_sentence_once(tokenizer: Tokenizer) -> None:
    sentences = [" ".join(["cat"] * n) for n in range(1, 30)]
    corpus = encode(sentences, tokenizer)
    per_word = len(tokenizer.encode("cat").ids)
    batches = SentenceBatches(corpus, 40, 20 * per_word, seed=1)
    for number in (0, 1):
        lengths = []
        for inputs, targets in batches.epoch(number):
            assert inputs[:, 0].eq(SENTENCE).all() and len(inputs) * inputs.shape[1] <= 40
            known = targets != IGNORED
            assert torch.equal(inputs[:, 1:][known[:, 1:]], targets[:, :-1][known[:, 1:]])
            lengths += (known.sum(1) - 1).tolist()
        assert sorted(lengths) == [n * per_word for n in range(1, 21)]  # longer ones are left out
    assert batches.num_targets == sum(lengths) + 20
    first = [i for i, _ in batches.epoch(0)]
    assert [i.tolist() for i in first[2:]] == [i.tolist() for i, _ in batches.epoch(0, skip=2)]
    assert [i.tolist() for i in first] != [i.tolist() for i, _ in batches.epoch(1)]


def test_it_learns_which_word_follows_and_goes_on_after_an_interruption(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(400):
        animal, sound = [("cat", "meows"), ("dog", "barks")][rng.integers(2)]
        rows.append(f"the {' '.join(rng.choice(['old', 'big', 'red'], 2))} {animal} {sound}")
    (tmp_path / "text.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    found = []
    for name, stops in (("whole", [None]), ("parts", [7, None])):
        for stop in stops:
            config = train_neural_lm.Config(
                texts=(tmp_path / "text.txt",), out=tmp_path / name, epochs=40, batch_pieces=300,
                network=NeuralLMConfig(pieces=28, dim=32, layers=2, heads=2), save_every_s=0,
            )  # fmt: skip
            with pytest.MonkeyPatch.context() as patch:
                if stop:
                    patch.setattr(train_neural_lm.Run, "_step", interrupted_after(stop))
                    with pytest.raises(SystemExit):
                        train_neural_lm.main(config)
                else:
                    train_neural_lm.main(config)
        found.append(load_neural_lm(tmp_path / name / "average")[0].state_dict())
    assert "going on from step 7" in capsys.readouterr().err
    assert all(torch.equal(a, found[1][k]) for k, a in found[0].items())
    right, wrong = TextScorer.load(tmp_path / "whole" / "average").log_probs(
        [["the", "old", "red", "cat", "meows"], ["the", "old", "red", "cat", "barks"]]
    )
    assert right[-2] > wrong[-2] + 3


def test_it_goes_on_from_a_model_of_other_texts(tmp_path: Path, tokenizer: Tokenizer) -> None:
    network = random_network()
    save_neural_lm(tmp_path / "old", network, tokenizer, torch.float32)
    (tmp_path / "text.txt").write_text("\n".join(TEXT) + "\n", encoding="utf-8")
    config = train_neural_lm.Config(
        texts=(tmp_path / "text.txt",), out=tmp_path / "run", init=tmp_path / "old", epochs=0.01,
        batch_pieces=10, muon_rate=0, adam_rate=0,
    )  # fmt: skip
    train_neural_lm.main(config)
    new, pieces = load_neural_lm(tmp_path / "run" / "average")
    assert new.config == network.config and pieces.to_str() == tokenizer.to_str()
    for name, weights in network.state_dict().items():
        assert torch.allclose(new.state_dict()[name], weights, atol=1e-3)
    with pytest.raises(ValueError, match="no neural language model here"):
        train_neural_lm.main(replace(config, out=tmp_path / "other", init=tmp_path / "none"))
    application = typer.Typer()
    application.command()(train_neural_lm.cli)
    given = ["--text", str(tmp_path / "text.txt"), "--out", str(tmp_path / "other"), "--layers", "3"]
    run = CliRunner().invoke(application, [*given, "--init", str(tmp_path / "old")])
    assert run.exit_code == 2 and "--init brings its own" in run.stderr and not (tmp_path / "other").exists()


def test_of_a_long_text_it_takes_sentences_from_all_over_it(
    tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    save_neural_lm(tmp_path / "old", random_network(), tokenizer, torch.float32)
    texts = tmp_path / "short.txt", tmp_path / "long.txt"
    for text, times in zip(texts, (1000, 10_000), strict=True):
        text.write_text("a b\nb a c\na\nc c c c\n" * times, encoding="utf-8")
    config = train_neural_lm.Config(
        texts=texts, out=tmp_path / "run", init=tmp_path / "old", epochs=0.0001, most_words=20_000,
        held_out_every=1000,
    )  # fmt: skip
    train_neural_lm.main(config)
    # 10,000 words, and a fifth of 100,000.
    assert "0.03 M words" in capsys.readouterr().err
    # And transcripts until they are a fifth of the words: 2,500 times the three that may be learnt.
    manifest, forbidden = tmp_path / "train.tsv", tmp_path / "dev.tsv"
    manifest.write_text("path\ttext\nx\ta B c\ny\tA B C\nz\tc b\n", encoding="utf-8")
    forbidden.write_text("path\ttext\nx\tC B\n", encoding="utf-8")
    config = replace(config, transcripts=(manifest,), transcripts_share=0.2, exclude=(forbidden,))
    train_neural_lm.main(replace(config, out=tmp_path / "more"))
    assert "0.04 M words" in capsys.readouterr().err
    manifest.write_text("path\ttext\nz\tc b\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no text that may be learnt"):
        train_neural_lm.main(replace(config, out=tmp_path / "none"))
    assert list(thinned("abcdefghij", 0.25)) == ["d", "h"] and list(thinned("abc", 1)) == ["a", "b", "c"]


def interrupted_after(steps: int):  # type: ignore[no-untyped-def]
    """A step that is Ctrl-C after so many."""
    step, done = train_neural_lm.Run._step, itertools.count()

    def limited(run, inputs, targets):  # type: ignore[no-untyped-def]
        if next(done) == steps:
            raise KeyboardInterrupt
        return step(run, inputs, targets)

    return limited


def test_in_sixteen_bits_company_changes_little(tokenizer: Tokenizer) -> None:
    scorer = TextScorer(random_network(), tokenizer, CPU)
    scorer._half = True
    texts = [t.split() for t in TEXT]
    for text, scores in zip(texts, scorer.log_probs(texts), strict=True):
        assert scores.sum() == pytest.approx(scorer.log_probs([text])[0].sum(), rel=0.02)


def test_texts_without_sentences(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n", encoding="utf-8")
    config = train_neural_lm.Config(texts=(tmp_path / "text.txt",), out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"text\.txt: no sentences in it"):
        train_neural_lm.main(config)
    with pytest.raises(ValueError, match="no sentences to measure"):
        perplexity(random_network(), encode([], train_tokenizer(TEXT, 30)), CPU)


def test_texts_with_too_few_pieces(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("ab ba\n" * 300, encoding="utf-8")
    config = train_neural_lm.Config(texts=(tmp_path / "text.txt",), out=tmp_path / "run")
    with pytest.raises(ValueError, match="give --pieces"):
        train_neural_lm.main(config)


def test_another_run_in_the_folder(tmp_path: Path) -> None:
    sizes = NeuralLMConfig(pieces=30, dim=16, layers=1, heads=1)
    config = train_neural_lm.Config(texts=(), out=tmp_path, network=sizes)
    train_neural_lm.Run(config, NeuralLM(sizes), 10, "a tokenizer").save()
    train_neural_lm.Run(config, NeuralLM(sizes), 20, "a tokenizer")  # longer is allowed
    for changed, tokenizer in (
        (config, "another"),
        (replace(config, network=replace(sizes, heads=2)), "a tokenizer"),
        (replace(config, seed=2), "a tokenizer"),
    ):
        with pytest.raises(ValueError, match="of other texts, sizes or batches"):
            train_neural_lm.Run(changed, NeuralLM(changed.network), 10, tokenizer)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"heads": 3}, "3 heads cannot share 16 channels"),
        ({"heads": 0}, "cannot have 0 heads"),
        ({"pieces": 0}, "cannot have 0 pieces"),
    ],
)
def test_sizes_that_cannot_be(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeuralLMConfig(**{"dim": 16, **sizes})


def test_a_model_comes_back_from_disk(tmp_path: Path, tokenizer: Tokenizer) -> None:
    network = random_network()
    save_neural_lm(tmp_path, network, tokenizer, torch.float32)
    again, its_tokenizer = load_neural_lm(tmp_path)
    assert again.config == network.config and its_tokenizer.encode("cat").ids == tokenizer.encode("cat").ids
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, r"no neural language model here \(config.json is missing\)"),
        ("config.json", "{", "not a neural language model that can be read"),
        ("config.json", '{"pieces": 30, "dim": 8, "layers": 2, "heads": 2}', "size mismatch"),
        ("config.json", '{"pieces": 30, "dim": 16, "layers": 2, "heads": 3}', "3 heads cannot share"),
        ("model.safetensors", "x", "not a neural language model that can be read"),
        ("tokenizer.json", "{}", "tokenizer.json cannot be read"),
    ],
)
def test_broken_folders(
    tmp_path: Path, tokenizer: Tokenizer, file: str, content: str | None, message: str
) -> None:
    save_neural_lm(tmp_path, random_network(), tokenizer)
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_neural_lm(tmp_path)


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    save_neural_lm(tmp_path, random_network(), train_tokenizer(TEXT, 25))
    with pytest.raises(ValueError, match=r"25 pieces in tokenizer\.json, 30 in config\.json"):
        load_neural_lm(tmp_path)


def test_more_pieces_than_fit() -> None:
    with pytest.raises(ValueError, match="at most 65536"):
        train_tokenizer(TEXT, 70_000)

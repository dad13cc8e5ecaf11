"""A packed n-gram model is the ARPA file's, to a hundredth."""

from __future__ import annotations

import lzma
import random
import sys
from pathlib import Path

import kenlm
import numpy as np
import pytest
import typer
from test_ngram import WORDS, kenlm_scores, write_arpa
from typer.testing import CliRunner

from asr.decoder.arpa import Section, read_arpa
from asr.decoder.ngram import NgramModel
from asr.decoder.packed import MAGIC, SUFFIX, arpa_lines, pack, unpack

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))
import compress
import train_lm

ARRAYS = ("suffix", "word", "first")


def parsed(path: Path) -> tuple[list[str], list[Section]]:
    return read_arpa(path.read_bytes(), str(path))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("unknown", [True, False])
def test_the_model_comes_back(tmp_path: Path, order: int, unknown: bool) -> None:
    for seed in range(5):
        path = write_arpa(tmp_path / "lm.arpa", order, seed, unknown=unknown)
        packed = tmp_path / f"lm{seed}{SUFFIX}"
        packed.write_bytes(pack(*parsed(path)))
        ours, theirs = NgramModel.read(packed), NgramModel.read(path)
        assert ours.words == theirs.words and ours.order == theirs.order == order
        for name in ARRAYS:
            assert np.array_equal(getattr(ours, name), getattr(theirs, name))
        for name in ("log_prob", "backoff"):
            apart = np.abs(getattr(ours, name) - getattr(theirs, name))
            assert apart.max() <= 0.005 * np.log(10) + 1e-5
        # What is in hundredths comes back as it is, in whatever order its lines were.
        words, sections = unpack(lzma.decompress(packed.read_bytes()), "again")
        rng = np.random.default_rng(seed)
        mixed = []
        for section in sections:
            lines = rng.permutation(len(section.grams))
            mixed.append(Section(section.grams[lines], section.prob[lines], section.backoff[lines]))
        assert pack(words, mixed) == packed.read_bytes()


def test_many_numbers_of_all_sizes() -> None:
    """Ids and counts of more than one byte, contexts that nothing follows, scores at their limits."""
    rng = np.random.default_rng(1)
    size = 70_000
    words = ["<unk>", *(f"wörter{i}" for i in range(1, size))]
    keys = np.unique(rng.integers(0, size * 300, 5_000))  # of contexts below 300 alone
    keys = np.union1d(keys, 299 * size + np.arange(0, size, 7))
    grams = np.stack([keys // size, keys % size], 1).astype(np.int32)
    sections = [
        Section(
            np.arange(size, dtype=np.int32)[:, None], rng.integers(-10_000, 1, size) / 100, np.zeros(size)
        ),
        Section(grams, rng.integers(-9_900, 1, len(grams)) / 100, rng.integers(-700, 300, len(grams)) / 100),
    ]
    found, back = unpack(lzma.decompress(pack(words, sections)), "it")
    assert found == words
    for before, after in zip(sections, back, strict=True):
        assert np.array_equal(before.grams, after.grams)
        assert np.array_equal(before.prob, after.prob) and np.array_equal(before.backoff, after.backoff)
    in_steps = unpack(lzma.decompress(pack(words, sections, step=5)), "it")[1]
    for before, after in zip(sections, in_steps, strict=True):
        assert np.array_equal(before.grams, after.grams)
        for ours, theirs in ((after.prob, before.prob), (after.backoff, before.backoff)):
            assert 0.019 < np.abs(ours - theirs).max() < 0.0201 or not theirs.any()
    far = [Section(sections[0].grams, np.full(size, -1e9), np.zeros(size))]
    assert unpack(lzma.decompress(pack(words, far)), "it")[1][0].prob.max() == -327.67


def test_what_is_no_model(tmp_path: Path) -> None:
    path = write_arpa(tmp_path / "lm.arpa", 3, 1)
    words, sections = parsed(path)
    content = lzma.decompress(pack(words, sections))
    path = tmp_path / f"broken{SUFFIX}"
    no_step = content.replace(b'"step": 1', b'"step": 0', 1)
    assert no_step != content
    for broken in (
        content[:-1], content + b"x", content[:300], no_step, MAGIC, MAGIC + b"{}\n", MAGIC + b"[1]\n",
    ):  # fmt: skip
        path.write_bytes(lzma.compress(broken))
        with pytest.raises(ValueError, match=r"broken\.ngrams\.xz: a damaged language model"):
            NgramModel.read(path)
    path.write_bytes(pack(words, sections)[:-20])
    with pytest.raises(
        ValueError, match=r"broken\.ngrams\.xz: not an ARPA language model \(or a damaged one\)"
    ):
        NgramModel.read(path)
    few = Section(sections[1].grams[1:], sections[1].prob[1:], sections[1].backoff[1:])
    with pytest.raises(ValueError, match="an n-gram whose beginning is no n-gram itself"):
        pack(words, [sections[0], few, sections[2]])


def test_to_packed_and_back_for_other_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_arpa(tmp_path / "lm.arpa", 3, 7)
    packed, again = tmp_path / f"lm{SUFFIX}", tmp_path / "again.arpa.gz"
    compress.main(path, packed, step=1)
    compress.main(packed, again, step=1)
    assert capsys.readouterr().out.count("MB, before") == 2
    rng = random.Random(1)
    ours, theirs = NgramModel.read(again), kenlm.Model(str(path))
    for _ in range(50):
        words = rng.choices([*WORDS, "unheard"], k=rng.randrange(8))
        expected = kenlm_scores(theirs, words, True, True)
        assert ours.score(words) == pytest.approx(expected, abs=3 * 0.012)  # three scores make one
        assert ours.score(words) == pytest.approx(NgramModel.read(packed).score(words), abs=1e-5)
    application = typer.Typer()
    application.command()(compress.main)
    run = CliRunner().invoke(application, [str(path), "--out", str(tmp_path / "small")])
    assert run.exit_code == 2 and "name a file .ngrams.xz, or .arpa" in run.stderr
    assert not (tmp_path / "small").exists()
    lines = "".join(arpa_lines(*parsed(path)))
    (tmp_path / "third.arpa").write_text(lines, encoding="utf-8")
    assert NgramModel.read(tmp_path / "third.arpa").score(["a", "b"]) == NgramModel.read(path).score(
        ["a", "b"]
    )


def test_train_lm_writes_it(tmp_path: Path) -> None:
    rng = random.Random(3)
    sentences = [" ".join(rng.choices(WORDS, (4, 3, 2, 1), k=rng.randrange(1, 6))) for _ in range(300)]
    (tmp_path / "text.txt").write_text("\n".join(sentences) + "\n", encoding="utf-8")
    models = []
    for name in (f"lm{SUFFIX}", "lm.arpa"):
        out = tmp_path / name
        train_lm.main(
            train_lm.Config(texts=(tmp_path / "text.txt",), out=out, held_out_every=20, use_lmplz=False)
        )
        models.append(NgramModel.read(out))
    assert models[0].words == models[1].words
    for name in ("log_prob", "backoff"):
        apart = np.abs(getattr(models[0], name) - getattr(models[1], name)).max()
        assert 0 < apart < (0.025 + 0.005) * np.log(10) + 1e-5  # steps of 0.05, and two decimals

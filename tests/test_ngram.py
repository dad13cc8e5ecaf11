"""Scores are KenLM's."""

import gzip
import lzma
import math
import random
from pathlib import Path

import kenlm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoder.ngram import NgramModel, read_ngrams
from asr.decoder.packed import arpa_lines
from asr.paths import language_model

WORDS = ["a", "b", "c", "d"]


def write_arpa(
    path: Path, order: int, seed: int, keep: float = 0.5, unknown: bool = True, sensible: bool = False
) -> Path:
    """A random backoff model over WORDS, closed as KenLM demands: an n-gram's beginning is an n-gram too.

    `sensible`: an n-gram scores no less than backing off from it would, as in most of a real model.
    """
    rng = random.Random(seed)
    levels = [[("<unk>",)] * unknown + [("<s>",), ("</s>",), *((w,) for w in WORDS)]]
    for _ in range(1, order):
        previous = [g for g in levels[-1] if g[-1] not in ("</s>", "<unk>")]
        grams = [(*g, w) for g in previous for w in [*WORDS, "</s>"] if rng.random() < keep]
        # A suffix that pruning took away as well would be no model that lmplz writes.
        grams = [g for g in grams if len(g) < 3 or g[1:] in levels[-1]]
        levels.append(grams)
    probs: dict[tuple[str, ...], float] = {}
    backoffs: dict[tuple[str, ...], float] = {}
    lines = ["\\data\\", *(f"ngram {n}={len(grams)}" for n, grams in enumerate(levels, 1)), ""]
    for n, grams in enumerate(levels, 1):
        lines.append(f"\\{n}-grams:")
        for gram in grams:
            score = -99.0 if gram == ("<s>",) else -rng.uniform(0.05, 2.5)
            if sensible and n > 1:
                score = max(score, backoffs[gram[:-1]] + probs[gram[1:]])
            probs[gram], backoffs[gram] = score, -rng.uniform(0, 1)
            backoff = f"\t{backoffs[gram]:.4f}" if n < order and gram[-1] not in ("</s>", "<unk>") else ""
            lines.append(f"{score:.4f}\t{' '.join(gram)}{backoff}")
        lines.append("")
    path.write_text("\n".join([*lines, "\\end\\", ""]), encoding="utf-8")
    return path


def kenlm_scores(model: kenlm.Model, words: list[str], bos: bool, eos: bool) -> list[float]:
    return [score * math.log(10) for score, _, _ in model.full_scores(" ".join(words), bos=bos, eos=eos)]


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("unknown", [True, False])
def test_equals_kenlm_on_random_models(tmp_path: Path, order: int, unknown: bool) -> None:
    rng = random.Random(order)
    for seed in range(5):
        path = write_arpa(tmp_path / f"{seed}.arpa", order, seed, unknown=unknown)
        ours, theirs = NgramModel.read(path), kenlm.Model(str(path))
        for _ in range(60):
            words = rng.choices([*WORDS, "unheard"], k=rng.randrange(8))
            for bos, eos in ((True, True), (True, False), (False, True), (False, False)):
                assert ours.score(words, bos, eos) == pytest.approx(
                    kenlm_scores(theirs, words, bos, eos), abs=1e-4
                )


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> tuple[NgramModel, kenlm.Model]:
    plain = tmp_path_factory.mktemp("lm") / "lm.arpa"
    with plain.open("w", encoding="utf-8") as file:
        file.writelines(arpa_lines(*read_ngrams(language_model().read_bytes(), "embedded")))
    return NgramModel.read(language_model()), kenlm.Model(str(plain))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_embedded_model_equals_kenlm(embedded: tuple[NgramModel, kenlm.Model], data: st.DataObject) -> None:
    ours, theirs = embedded
    known = [w for w in ours.words[:3000] if not w.startswith("<")]
    words = data.draw(st.lists(st.sampled_from([*known, "qqqxv"]), max_size=12))
    bos, eos = data.draw(st.booleans()), data.draw(st.booleans())
    assert ours.score(words, bos, eos) == pytest.approx(kenlm_scores(theirs, words, bos, eos), abs=1e-4)


def test_scores_by_ids_are_those_by_words(tmp_path: Path) -> None:
    model = NgramModel.read(write_arpa(tmp_path / "lm.arpa", 3, seed=3))
    ids = model.ids()
    words = ["a", "b", "d", "c"]
    by_ids = model.scores_of_ids([*(ids[w] for w in words), model.end])
    assert by_ids == pytest.approx(model.score(words), abs=1e-5)
    after = model.scores_after(np.array([-1, model.start()], np.int32), ids["a"])
    assert after == pytest.approx([model.score(["a"], bos=b, eos=False)[0] for b in (False, True)], abs=1e-5)


def test_backing_off_costs_what_an_unknown_word_costs_beside_its_own_score(tmp_path: Path) -> None:
    path = write_arpa(tmp_path / "lm.arpa", 3, 5)
    model, reference = NgramModel.read(path), kenlm.Model(str(path))
    ids, rng = model.ids(), random.Random(1)
    some = 0
    for _ in range(50):
        words = [rng.choice(WORDS) for _ in range(4)]
        backoffs = model.scores_and_backoffs([ids[w] for w in words])[1]
        for i, cost in enumerate(backoffs):
            unknown = kenlm_scores(reference, [*words[:i], "unread"], True, False)[-1]
            assert cost == pytest.approx(unknown - float(model.log_prob[0]), abs=1e-4)
            some += cost < -0.1
    assert some > 100


def test_totals_are_the_sums_of_what_each_text_scores(tmp_path: Path) -> None:
    model = NgramModel.read(write_arpa(tmp_path / "lm.arpa", 3, 5))
    rng = np.random.default_rng(2)
    texts = [rng.integers(0, len(model.words), n) for n in (4, 0, 1, 7, 0)]
    floors = [np.where(rng.random(len(text)) < 0.5, rng.uniform(-4, 0, len(text)), -np.inf) for text in texts]
    expected, raised = [], 0
    for text, floor in zip(texts, floors, strict=True):
        scores, backoffs = model.scores_and_backoffs([*text, model.end])
        at_least = np.append(backoffs[:-1] + floor, -np.inf)
        raised += (at_least > scores).sum()
        expected.append(np.maximum(scores, at_least).sum())
    found = model.totals(
        np.concatenate(texts).astype(np.int32), np.concatenate(floors).astype(np.float32),
        np.cumsum([len(text) for text in texts]),
    )  # fmt: skip
    assert raised > 1
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_compressed_files_are_the_same_model(tmp_path: Path) -> None:
    plain = write_arpa(tmp_path / "lm.arpa", 3, seed=1)
    (tmp_path / "lm.arpa.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "lm.arpa.xz").write_bytes(lzma.compress(plain.read_bytes()))
    scores = [NgramModel.read(tmp_path / f"lm.arpa{end}").score(["a", "c"]) for end in ("", ".gz", ".xz")]
    assert scores[0] == scores[1] == scores[2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "no \\\\data\\\\"),
        (b"\\data\\\nngram 1=1\n\n\\1-grams:\n-1\ta\n", "breaks off"),
        (b"\\data\\\nngram 1=1\n\n\\1-grams:\n-1 a b c d\n\\end\\\n", "bad line"),
        (b"\\data\\\n\n\\1-grams:\n-1\ta\n\n\\2-grams:\n-1\ta z\n\n\\end\\\n", "bad 2-gram line"),
        (b"\\data\\\n\n\\1-grams:\n-1\ta\n\n\\2-grams:\n-1x\ta a\n\n\\end\\\n", "bad 2-gram line '-1x"),
        (b"\\data\\\n\n\\1-grams:\n-1\ta\n\n\\2-grams:\n-1\ta a -1 -1\n\n\\end\\\n", "bad 2-gram line"),
        (b"\\data\\\n\n\\1-grams:\n-1\ta\n\n\\2-grams:\n-1\ta\n\n\\end\\\n", "bad 2-gram line"),
        (b"\x1f\x8bnot gzip", "not an ARPA"),
        (b"\xff\xfe\x00binary", "not an ARPA"),
    ],
)
def test_what_is_no_arpa_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "lm.arpa").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        NgramModel.read(tmp_path / "lm.arpa")


def test_numbers_and_line_ends_as_tools_write_them(tmp_path: Path) -> None:
    """Exponents, plus signs, many digits, spaces for tabs, Windows line ends."""
    arpa = "\\data\\\nngram 1=4\nngram 2=2\n\n\\1-grams:\n-99\t<s>\t-0.30103\n-1\t</s>\n"
    arpa += "-1e0\ta\t+1.5E-1\n-0.69897000433601880478\tb\t0\n"
    arpa += "\n\\2-grams:\n-2.5e-01 <s> a\n-1.\ta b\n\n\\end\\\n"
    (tmp_path / "unix.arpa").write_text(arpa, encoding="utf-8")
    (tmp_path / "windows.arpa").write_bytes(arpa.replace("\n", "\r\n").encode())
    expected = np.array([-0.25, -1.0, -1.0]) * math.log(10)
    for name in ("unix.arpa", "windows.arpa"):
        assert NgramModel.read(tmp_path / name).score(["a", "b"]) == pytest.approx(expected, abs=1e-6)
    assert NgramModel.read(tmp_path / "unix.arpa").score(["a", "a"], eos=False)[1] == pytest.approx(
        (0.15 - 1.0) * math.log(10), abs=1e-6
    )

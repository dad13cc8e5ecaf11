"""Viterbi alignment is the best of all alignments; the recipe aligns to what the lexicons say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference.viterbi import best_score

from asr import paths
from asr.model.features import NUM_MELS
from asr.phones import PhoneSet
from asr.training.alignment import STATES_PER_PHONE, StateGraph, align, build_graph, phones_of, uniform
from asr.training.prepared import UNLABELLED, Alignments, Prepared
from asr.training.transcripts import lexicon_files

RECIPES = Path(__file__).parents[1] / "recipes"


def test_equals_trying_all_alignments() -> None:
    for seed in range(25):
        rng = np.random.default_rng(seed)
        words = [
            [rng.integers(1, 4, rng.integers(1, 3)).tolist() for _ in range(rng.integers(1, 3))]
            for _ in range(rng.integers(1, 3))
        ]
        scores = rng.normal(0, 2, (int(rng.integers(9, 13)), 12)).astype(np.float32)
        expected = best_score(words, scores)
        graph = build_graph(words)
        if expected == -np.inf:
            with pytest.raises(ValueError, match="too few"):
                align(graph, scores)
            continue
        path, score = align(graph, scores)
        assert score == pytest.approx(expected, abs=1e-3)
        assert sum(scores[t, graph.classes[s]] for t, s in enumerate(path)) == pytest.approx(score, abs=1e-3)


def speak(phones: list[int], frames: int, num_classes: int) -> np.ndarray:
    """Scores of a speaker who gives each state of these phones as many frames."""
    scores = np.full((3 * len(phones) * frames, num_classes), -5, np.float32)
    for i, phone in enumerate(phones):
        for k in range(3):
            scores[(3 * i + k) * frames : (3 * i + k + 1) * frames, 3 * phone + k] = 0
    return scores


def test_the_pronunciation_that_was_said_is_chosen() -> None:
    words = [[[1, 2], [1, 3]], [[4], [2]]]
    graph = build_graph(words)
    for said, silence in (([1, 2, 4], False), ([1, 3, 2], True), ([1, 3, 4], False)):
        phones = [0, *said[:2], 0, said[2], 0] if silence else said
        path, score = align(graph, speak(phones, 2, 15))
        assert score == 0
        found, word = phones_of(graph, path)
        assert found.tolist() == said
        assert word.tolist() == [0, 0, 1]


def test_uniform_path_is_one_that_the_graph_allows() -> None:
    graph = build_graph([[[1, 2], [3]], [[2]]])
    path = uniform(graph, 60)
    found, word = phones_of(graph, path)
    assert found.tolist() == [1, 2, 2]
    assert word.tolist() == [0, 0, 1]
    counts = np.bincount(path)[np.bincount(path) > 0]
    assert counts.max() - counts.min() <= 1
    assert graph.classes[path[0]] == 0 and graph.classes[path[-1]] == 2  # silence at both ends


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """recipes/align.py, with a base lexicon of two words and a user's lexicon that is not there."""
    base = tmp_path / "en.txt"
    base.write_text("coffee\tk ɔ f i\nthe\tð ə\n", encoding="utf-8")
    monkeypatch.setattr(paths, "base_lexicon", lambda: base)
    monkeypatch.setattr(paths, "user_lexicon", lambda: tmp_path / "user.txt")
    monkeypatch.syspath_prepend(str(RECIPES))
    import align as module

    return module


def write_prepared(folder: Path, texts: list[str], frames: int = 120) -> None:
    """Utterances of noise."""
    rows = [f"u{i}\ts\t\t{text}\t{i * frames}:{(i + 1) * frames}" for i, text in enumerate(texts)]
    header = "id\tset\tspeaker\ttext\t1.00"
    (folder / "utterances.tsv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    noise = np.random.default_rng(0).normal(0, 1, (frames * len(texts), NUM_MELS))
    noise.astype(np.float16).tofile(folder / "features-1.00.raw")


def ways(recipe: Any, folder: Path, phones: PhoneSet, **config: Any) -> str:
    """All that the graph of a folder's utterance can say, one way after the other."""
    seen: list[StateGraph] = []

    def train(config: Any, features: Any, graphs: list[StateGraph], num_classes: int) -> None:
        seen.extend(graphs)
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(recipe, "train", train)
        recipe.cli(prepared=folder, **config)
    (graph,) = seen
    said = graph.classes[(graph.words >= 0) & (graph.classes % STATES_PER_PHONE == 0)]
    return " ".join(phones.symbols[i // STATES_PER_PHONE] for i in said)


def test_words_are_aligned_in_the_pronunciations_of_all_lexicons(
    recipe: Any, tmp_path: Path, phones: PhoneSet
) -> None:
    write_prepared(tmp_path, ["COFFEE"])
    base = "k ɔ f i"
    assert ways(recipe, tmp_path, phones) == base
    assert ways(recipe, tmp_path, phones, lexicon=[tmp_path / "en.txt"]) == base  # it is there already

    (tmp_path / "user.txt").write_text("Coffee\tk oʊ f i\n", encoding="utf-8")
    (tmp_path / "one.txt").write_text("coffee\tk ɑː f\ncoffee\tk ɔ f i\n", encoding="utf-8")
    (tmp_path / "two.txt").write_text("coffee\tf i\n", encoding="utf-8")
    more = [tmp_path / "one.txt", tmp_path / "two.txt"]
    assert ways(recipe, tmp_path, phones) == f"{base} k oʊ f i"
    assert ways(recipe, tmp_path, phones, lexicon=more) == f"{base} k oʊ f i k ɑː f f i"
    assert ways(recipe, tmp_path, phones, lexicon=more, user_lexicon=False) == f"{base} k ɑː f f i"
    with pytest.raises(ValueError, match=r"none\.txt: no such lexicon file"):
        lexicon_files([tmp_path / "none.txt"])


def test_alignments_know_their_texts(recipe: Any, tmp_path: Path, phones: PhoneSet) -> None:
    write_prepared(tmp_path, ["THE COFFEE", "COFFEE", ""])
    (tmp_path / "user.txt").write_text("coffee\tk oʊ f i\n", encoding="utf-8")
    recipe.cli(prepared=tmp_path, passes=2)
    found = Alignments.open(tmp_path / "alignments.npz")
    assert found.digest == Prepared.open(tmp_path).digest()
    assert not len(found.targets(2))
    said = [" ".join(phones.symbols[t] for t in found.targets(i)) for i in range(2)]
    assert said[0] in ("ð ə k ɔ f i", "ð ə k oʊ f i") and said[1] in ("k ɔ f i", "k oʊ f i")
    begins = [np.flatnonzero(found.starts_of_words(i)).tolist() for i in range(3)]
    assert begins == [[0, 2], [0], []]


@pytest.mark.parametrize(
    ("texts", "frames", "message"),
    [
        (["", "..."], 120, "no utterance has a text whose words can be pronounced"),
        (["COFFEE"], 4, "no utterance is long enough for its text"),
    ],
)
def test_nothing_to_align_is_one_line(
    recipe: Any,
    texts: list[str],
    frames: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_prepared(tmp_path, texts, frames)
    with pytest.raises(SystemExit):
        recipe.cli(prepared=tmp_path)
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "alignments.npz").exists()


def test_phones_that_are_known_are_taken_as_they_are(recipe: Any, tmp_path: Path, phones: PhoneSet) -> None:
    write_prepared(tmp_path, ["THE COFFEE", "COFFEE", "THE"])
    table = tmp_path / "manifest.phones.tsv"
    table.write_text("path\tphones\naudio/u0.opus\tð ə | k oʊ f i\nu2.wav\tð ɪ\n", encoding="utf-8")
    recipe.cli(prepared=tmp_path, spoken=table)
    found = Alignments.open(tmp_path / "alignments.npz")
    said = [" ".join(phones.symbols[t] for t in found.targets(i)) for i in range(3)]
    assert said == ["ð ə k oʊ f i", "", "ð ɪ"]
    begins = [np.flatnonzero(found.starts_of_words(i)).tolist() for i in range(3)]
    assert begins == [[0, 2], [], [0]]
    found.check_of(Prepared.open(tmp_path))
    assert len(found.classes) == 360 and (found.classes == UNLABELLED).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "path\ttext\nu0.opus\tcoffee\n",
            "no columns path and phones: give what recipes/synthesize.py wrote",
        ),
        ("path\tphones\nu0.opus\tk xyz\n", "table.tsv:2: "),
        ("path\tphones\na/u0.opus\tk\nb/u0.opus\tk\n", "table.tsv:3: a second recording named u0"),
        ("path\tphones\nother.opus\tk\n", "knows none of the prepared recordings"),
    ],
)
def test_another_table_of_phones_is_one_line(
    recipe: Any, content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prepared(tmp_path, ["COFFEE"])
    (tmp_path / "table.tsv").write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit):
        recipe.cli(prepared=tmp_path, spoken=tmp_path / "table.tsv")
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_known_phones_need_no_lexicon(
    recipe: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prepared(tmp_path, ["COFFEE"])
    with pytest.raises(SystemExit):
        recipe.cli(prepared=tmp_path, spoken=tmp_path / "table.tsv", lexicon=[tmp_path / "en.txt"])
    assert "without --lexicon" in capsys.readouterr().err

"""Viterbi alignment is the best of all alignments."""

import numpy as np
import pytest
from reference.viterbi import best_score

from asr.training.alignment import align, build_graph, phones_of, uniform


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

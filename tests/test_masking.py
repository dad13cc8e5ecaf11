"""Masked spans: as many and as long as in the paper, never beyond an utterance."""

import numpy as np
import torch

from asr.model.masking import MaskConfig, span_mask, unseen

PAPER = MaskConfig(start=0.065, span=10)


def spans_of(row: torch.Tensor) -> list[int]:
    """Lengths of the runs of masked frames."""
    edges = torch.diff(row.int(), prepend=torch.zeros(1), append=torch.zeros(1))
    return ((edges == -1).nonzero() - (edges == 1).nonzero()).flatten().tolist()


def test_share_and_mean_span_are_those_of_the_paper() -> None:
    # Baevski et al. 2020, appendix A: about 49 % of a 15 s sample, mean span 14.7 frames.
    mask = span_mask([749] * 400, PAPER, np.random.default_rng(0))
    assert abs(mask.float().mean().item() - 0.49) < 0.015
    spans = [span for row in mask for span in spans_of(row)]
    assert abs(np.mean(spans) - 14.7) < 0.4
    assert min(spans) >= PAPER.span


def test_the_default_hides_as_much_in_frames_of_30_ms() -> None:
    mask = span_mask([500] * 400, MaskConfig(), np.random.default_rng(0))
    assert abs(mask.float().mean().item() - 0.49) < 0.015


def test_spans_stay_inside_their_utterance() -> None:
    lengths = [0, 1, 2, 3, 9, 14, 40, 100]
    for seed in range(50):
        mask = span_mask(lengths, PAPER, np.random.default_rng(seed))
        assert mask.shape == (8, 100)
        for row, length in zip(mask, lengths, strict=True):
            assert not row[length:].any()
            # Something to guess, and something to guess it from.
            assert (0 < row.sum() < length) if length > 1 else not row.any()


def test_the_number_of_spans_is_rounded_at_random() -> None:
    # 0.05 * 30 = 1.5 spans of 1 frame.
    config = MaskConfig(start=0.05, span=1)
    counts = span_mask([30] * 4000, config, np.random.default_rng(0)).sum(1)
    assert set(counts.tolist()) == {1, 2}
    assert abs(counts.float().mean().item() - 1.5) < 0.03


def test_every_frame_can_be_masked() -> None:
    mask = span_mask([20] * 2000, PAPER, np.random.default_rng(0))
    assert mask.any(0).all()


def test_a_seed_gives_the_same_mask() -> None:
    masks = [span_mask([50, 80], PAPER, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


def test_no_utterances() -> None:
    assert span_mask([], PAPER, np.random.default_rng(0)).shape == (0, 0)


def test_only_the_inside_of_a_span_is_unseen() -> None:
    mask = torch.tensor([[0, 1, 1, 1, 1, 0, 1, 0], [1, 1, 0, 1, 1, 0, 0, 0]], dtype=torch.bool)
    # Outside of an utterance nothing is heard: its first and last frame have one neighbour.
    expected = [[0, 0, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 1, 0, 0, 0]]
    assert unseen(mask, torch.tensor([8, 5])).int().tolist() == expected

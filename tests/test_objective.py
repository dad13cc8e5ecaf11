"""The parts of the fine-tuning loss, by hand."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_training_data import write_prepared

from asr.model.arithmetic import autocast
from asr.model.encoder import EncoderConfig, PhoneModel
from asr.training.batches import Batch, BatchConfig, BatchSource
from asr.training.ctc_crf import ctc_crf_loss, estimate_phone_ngram
from asr.training.objective import (
    Loss,
    Objective,
    ObjectiveConfig,
    consistency_loss,
    crf_loss,
    ctc_loss,
    frame_loss,
    middle_log_probs,
)
from asr.training.prepared import Alignments, Prepared

SMALL = EncoderConfig(dim=16, bottleneck=8, dilations=(1, 2, 1, 2), statistics_after=(1,), statistics_dim=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write_prepared(folder)
    return folder


def batch_of(folder: Path, copies: int) -> Batch:
    config = BatchConfig(seconds=8.0, copies=copies)
    alignments = Alignments.open(folder / "alignments.npz")
    return next(iter(BatchSource(Prepared.open(folder), alignments, config).epoch(0)))


def test_consistency_by_hand() -> None:
    # Two utterances of two frames and one frame, two copies of each, two tokens.
    first = torch.tensor([[[0.5, 0.5], [0.1, 0.9]], [[0.3, 0.7], [0.9, 0.1]]])
    second = torch.tensor([[[0.25, 0.75], [0.1, 0.9]], [[0.6, 0.4], [0.2, 0.8]]])
    log_probs = torch.cat([first, second]).log().requires_grad_()
    loss = consistency_loss(log_probs, torch.tensor([2, 1, 2, 1]))

    def divergence(p: float, q: float) -> float:
        return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

    expected = divergence(0.5, 0.25) + divergence(0.25, 0.5) + divergence(0.3, 0.6) + divergence(0.6, 0.3)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_each_copy_is_drawn_to_the_other_which_stands_still() -> None:
    logits = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    consistency_loss(logits.log_softmax(2), torch.tensor([3, 2, 3, 2])).backward()
    probs = logits.detach().softmax(2)
    # Of sum(q * log(q / p)) by the logits of p, q fixed: p - q.
    expected = probs - probs[[2, 3, 0, 1]]
    expected[[1, 3], 2] = 0
    torch.testing.assert_close(logits.grad, expected)


def test_the_middle_is_what_a_network_of_half_the_blocks_says(folder: Path) -> None:
    torch.manual_seed(0)
    network = PhoneModel(SMALL, 6, auxiliary=True)
    torch.nn.init.normal_(network.encoder.statistics["1"].excite.weight)
    config = EncoderConfig(dim=16, bottleneck=8, dilations=(1, 2), statistics_after=(1,), statistics_dim=4)
    half = PhoneModel(config, 6)
    names = half.state_dict().keys()
    half.load_state_dict({k: v for k, v in network.state_dict().items() if k in names})

    batch = batch_of(folder, copies=1)
    lengths = network.encoder.output_lengths(batch.lengths)
    middle, _ = network.encoder.depths(network.encoder.frames(batch.features), lengths)
    with autocast(torch.device("cpu")):
        expected, _ = half(batch.features, batch.lengths)
    found = middle_log_probs(network, middle)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(found[row, :length], expected[row, :length], atol=0.05, rtol=0.05)


def test_the_parts_are_weighted(folder: Path) -> None:
    torch.manual_seed(0)
    network = PhoneModel(SMALL, 6, auxiliary=True)
    config = ObjectiveConfig(frame=(1.0, 0.2), consistency=0.5, intermediate=0.3)
    loss, parts = Objective(network, config)(batch_of(folder, copies=2), progress=0.25)
    assert all(part > 0 for part in parts.values())
    expected = 0.7 * parts["ctc"] + 0.3 * parts["middle"] + 0.8 * parts["frame"] + 0.5 * parts["consistency"]
    torch.testing.assert_close(loss, expected)
    assert parts["middle"] != parts["ctc"]


def test_parts_that_are_off_cost_nothing(folder: Path) -> None:
    network = PhoneModel(SMALL, 6, auxiliary=True)
    loss, parts = Objective(network, ObjectiveConfig())(batch_of(folder, copies=1), progress=1.0)
    assert set(parts) == {"ctc", "frame"}
    torch.testing.assert_close(loss, parts["ctc"] + 0.2 * parts["frame"])


def test_ctc_crf_with_some_ctc(folder: Path) -> None:
    torch.manual_seed(0)
    network = PhoneModel(SMALL, 6, auxiliary=True)
    batch = batch_of(folder, copies=1)
    ngram = estimate_phone_ngram([[1, 2, 3, 4], [2, 3, 4, 1]], 6)
    config = ObjectiveConfig(loss=Loss.CTC_CRF, intermediate=0.3)
    loss, parts = Objective(network, config, ngram)(batch, progress=1.0)
    expected = 0.7 * (parts["crf"] + 0.1 * parts["ctc"]) + 0.3 * parts["middle"] + 0.2 * parts["frame"]
    torch.testing.assert_close(loss, expected)
    with autocast(torch.device("cpu")):
        hidden, lengths = network.encoder(batch.features, batch.lengths)
        logits = network.ctc(hidden).float()
    each = ctc_crf_loss(logits, lengths, batch.targets, batch.target_lengths, ngram)
    torch.testing.assert_close(parts["crf"], each.sum() / batch.target_lengths.sum())
    assert crf_loss(logits, lengths, batch, ngram) == parts["crf"] != parts["ctc"]


def test_copies_that_are_alike_agree(folder: Path) -> None:
    batch = batch_of(folder, copies=1)
    log_probs, lengths = PhoneModel(SMALL, 6)(batch.features.repeat(2, 1, 1), batch.lengths.repeat(2))
    assert consistency_loss(log_probs, lengths).item() == pytest.approx(0, abs=1e-4)


def test_ctc_and_frame_loss_by_hand() -> None:
    batch = Batch(
        features=torch.zeros(1, 6, 80), lengths=torch.tensor([6]), targets=torch.tensor([[1]]),
        target_lengths=torch.tensor([1]), classes=torch.tensor([[3, -1]]), left=torch.tensor([[0, -1]]),
        right=torch.tensor([[1, -1]]), seconds=0.06,
    )  # fmt: skip
    probs = torch.tensor([[[0.4, 0.6], [0.7, 0.3]]])
    # The paths blank-1, 1-blank and 1-1.
    expected = -math.log(0.4 * 0.3 + 0.6 * 0.7 + 0.6 * 0.3)
    assert ctc_loss(probs.log(), torch.tensor([2]), batch).item() == pytest.approx(expected, rel=1e-5)
    # Even over 6 classes, 2 phones before and 2 after, in the one frame that counts.
    even = frame_loss(torch.zeros(1, 2, 10), batch).item()
    assert even == pytest.approx(math.log(6) + 0.3 * 2 * math.log(2), rel=1e-5)


def test_weights_out_of_range() -> None:
    with pytest.raises(ValueError, match="share of the loss, from 0 to below 1: 1"):
        ObjectiveConfig(intermediate=1.0)
    with pytest.raises(ValueError, match="consistency cannot be negative"):
        ObjectiveConfig(consistency=-0.2)


def test_frames_without_labels_cost_nothing(folder: Path) -> None:
    """Those of synthesised speech; where a batch has no others, the loss is none and not nan."""
    batch = batch_of(folder, 1)
    logits = torch.randn(*batch.classes.shape, 5 * 47, requires_grad=True)
    unlabelled = torch.full_like(batch.classes, -1)
    nothing = frame_loss(logits, replace(batch, classes=unlabelled, left=unlabelled, right=unlabelled))
    assert nothing.item() == 0
    nothing.backward()
    assert not logits.grad.any()
    half = unlabelled.clone()
    half[0] = batch.classes[0]
    first = replace(
        batch, classes=half, left=half.minimum(torch.tensor(9)), right=half.minimum(torch.tensor(9))
    )
    alone = {name: getattr(first, name)[:1] for name in ("classes", "left", "right")}
    assert frame_loss(logits, first).item() == pytest.approx(
        frame_loss(logits[:1], replace(batch, **alone)).item(), rel=1e-5
    )

"""The Gumbel product quantizer by hand, and against transformers' on the same weights and noise."""

import math

import pytest
import torch

from asr.model.quantizer import (
    GumbelQuantizer,
    QuantizerConfig,
    TemperatureSchedule,
    diversity_loss,
    perplexity,
)

SMALL = QuantizerConfig(groups=2, entries=3, code_dim=4)


def by_hand() -> GumbelQuantizer:
    """Frame (x, y): x decides the entry of the first codebook, y that of the second; the code is put out."""
    quantizer = GumbelQuantizer(SMALL, dim=2, out_dim=4)
    with torch.no_grad():
        quantizer.scores.weight.copy_(torch.tensor([[-1, 0], [0, 0], [1, 0], [0, -1], [0, 0], [0, 1.0]]))
        quantizer.codebooks.copy_(torch.arange(12.0).view(2, 3, 2))
        quantizer.out.weight.copy_(torch.eye(4))
        quantizer.out.bias.zero_()
    return quantizer


def test_one_entry_of_each_codebook_side_by_side() -> None:
    quantized = by_hand().eval()(torch.tensor([[5.0, -5.0], [-5.0, 5.0]]), 1.0)
    assert quantized.codes.tolist() == [[2, 0], [0, 2]]
    assert quantized.vectors.tolist() == [[4, 5, 6, 7], [0, 1, 10, 11]]
    # Each codebook uses two entries, evenly.
    assert quantized.perplexity.item() == pytest.approx(4)


def test_training_draws_entries_as_often_as_their_scores_say() -> None:
    torch.manual_seed(0)
    quantizer = by_hand()
    frames = torch.tensor([[1.0, 0.0]]).expand(20_000, 2)
    for temperature in (0.5, 2.0):  # how soft the gradient is, not what is drawn
        quantized = quantizer(frames, temperature)
        drawn = torch.nn.functional.one_hot(quantized.codes, 3).float().mean(0)
        torch.testing.assert_close(drawn[0], torch.tensor([-1.0, 0.0, 1.0]).softmax(0), atol=0.015, rtol=0)
        # Drawn, but whole entries: codebook vectors, not mixtures.
        assert set(quantized.vectors[:, 0].tolist()) <= {0.0, 2.0, 4.0}


def test_gradients_go_straight_through_the_choice() -> None:
    quantizer = by_hand()
    # The gradient with respect to the scores is that of the softmax of scores and noise.
    frames = torch.tensor([[0.3, -0.2]])
    torch.manual_seed(0)
    noise = -torch.empty(1, 2, 3).exponential_().log()
    torch.manual_seed(0)
    quantizer(frames, 0.7).vectors.sum().backward()
    scores = quantizer.scores(frames).detach().view(1, 2, 3).requires_grad_()
    soft = ((scores + noise) / 0.7).softmax(2)
    torch.einsum("ngv,gvd->", soft, quantizer.codebooks.detach()).backward()
    assert quantizer.scores.bias.grad is not None and scores.grad is not None
    torch.testing.assert_close(quantizer.scores.bias.grad, scores.grad.flatten())


def test_perplexity_counts_the_entries_in_use() -> None:
    shares = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    assert perplexity(shares).item() == pytest.approx(4 + 2 + 1)


def test_an_entry_without_any_share_has_a_finite_gradient() -> None:
    quantizer = by_hand()
    loss = diversity_loss(quantizer(torch.full((5, 2), 500.0), 1.0).perplexity, SMALL)
    loss.backward()
    assert loss.item() == pytest.approx(4 / 6)
    assert quantizer.scores.weight.grad is not None and quantizer.scores.weight.grad.isfinite().all()


def test_a_fresh_quantizer_uses_most_of_its_entries() -> None:
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(QuantizerConfig(), dim=512, out_dim=256)
    assert quantizer(torch.randn(2_000, 512), 2.0).perplexity > 500


def test_diversity_loss_is_the_share_of_idle_entries() -> None:
    assert diversity_loss(torch.tensor(6.0), SMALL).item() == 0
    assert diversity_loss(torch.tensor(2.0), SMALL).item() == pytest.approx(4 / 6)


def test_temperature_falls_as_in_the_paper() -> None:
    schedule = TemperatureSchedule()
    assert schedule(0) == pytest.approx(2)
    updates = 400_000
    for step in (1_000, 100_000, 250_000, 390_000):
        assert schedule(step / updates) == pytest.approx(max(0.5, 2 * 0.999995**step), rel=0.01)
    assert schedule(1) == pytest.approx(0.5)
    assert math.isclose(TemperatureSchedule(start=1, end=0.25, reached_at=1)(0.5), 0.5)


def test_groups_must_divide_the_code() -> None:
    with pytest.raises(ValueError, match="code_dim 5 must be a multiple of the 2 groups"):
        GumbelQuantizer(QuantizerConfig(groups=2, code_dim=5), 8, 8)


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_same_as_transformers(training: bool) -> None:
    transformers = pytest.importorskip(
        "transformers", reason="the judge is not installed: pip install transformers"
    )
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2GumbelVectorQuantizer

    torch.manual_seed(0)
    config = QuantizerConfig(groups=2, entries=7, code_dim=6)
    judge = Wav2Vec2GumbelVectorQuantizer(
        transformers.Wav2Vec2Config(
            num_codevector_groups=2, num_codevectors_per_group=7, codevector_dim=6, conv_dim=(5,),
            conv_stride=(1,), conv_kernel=(1,),
        )
    ).train(training)  # fmt: skip
    judge.temperature = 0.8
    ours = GumbelQuantizer(config, dim=5, out_dim=6).train(training)
    with torch.no_grad():
        ours.out.weight.copy_(torch.eye(6))
        ours.out.bias.zero_()
        judge.weight_proj.load_state_dict(ours.scores.state_dict())
        judge.codevectors.copy_(ours.codebooks.reshape(1, 14, 3))
    frames = torch.randn(40, 5)
    torch.manual_seed(1)
    theirs, their_perplexity = judge(frames[None])
    torch.manual_seed(1)
    quantized = ours(frames, 0.8)
    torch.testing.assert_close(quantized.vectors, theirs[0])
    torch.testing.assert_close(quantized.perplexity, their_perplexity)
    weights = torch.randn(40, 6)
    (quantized.vectors * weights).sum().backward()
    (theirs[0] * weights).sum().backward()
    torch.testing.assert_close(ours.codebooks.grad.reshape(1, 14, 3), judge.codevectors.grad)
    if training:
        torch.testing.assert_close(ours.scores.weight.grad, judge.weight_proj.weight.grad)

"""The contrastive objective by hand, and against transformers' on the same weights, masks and distractors."""

import math

import numpy as np
import pytest
import torch

from asr.model.encoder import Encoder, EncoderConfig
from asr.model.features import NUM_MELS
from asr.model.masking import span_mask, unseen
from asr.model.quantizer import Quantized, QuantizerConfig
from asr.training.contrastive import Contrastive, ContrastiveConfig, contrastive_logits, sample_distractors

SMALL = EncoderConfig(dim=32, bottleneck=16, dilations=(1, 2), statistics_after=(1,), statistics_dim=8)
CONFIG = ContrastiveConfig(
    quantizer=QuantizerConfig(groups=2, entries=8, code_dim=8), out_dim=16, distractors=10
)


def test_distractors_are_other_masked_frames_of_the_same_utterance() -> None:
    drawn = sample_distractors([3, 0, 1, 4], 5_000, np.random.default_rng(0))
    assert drawn.shape == (8, 5_000)
    for frame, others in enumerate([{1, 2}, {0, 2}, {0, 1}, {3}, *({4, 5, 6, 7} - {i} for i in range(4, 8))]):
        found, counts = drawn[frame].unique(return_counts=True)
        assert set(found.tolist()) == others
        assert (counts / 5_000 - 1 / len(others)).abs().max() < 0.03


def test_nothing_masked_gives_no_distractors() -> None:
    assert sample_distractors([0, 0], 5, np.random.default_rng(0)).shape == (0, 5)


def test_logits_are_cosines_over_temperature() -> None:
    vectors = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    target = Quantized(vectors, torch.tensor([[0], [1], [2]]), torch.tensor(3.0))
    context = torch.tensor([[5.0, 0.0], [1.0, 1.0], [0.0, -2.0]])
    logits = contrastive_logits(context, target, torch.tensor([[1, 2], [0, 2], [0, 1]]), 0.1)
    half = math.sqrt(0.5)
    expected = torch.tensor([[1, 0, half], [half, half, 1], [-half, 0, -1]]) / 0.1
    torch.testing.assert_close(logits, expected)


def test_a_distractor_that_is_the_target_does_not_count() -> None:
    target = Quantized(torch.randn(3, 4), torch.tensor([[0, 1], [0, 1], [0, 2]]), torch.tensor(2.0))
    logits = contrastive_logits(torch.randn(3, 4), target, torch.tensor([[1, 2], [0, 2], [0, 1]]), 0.1)
    assert logits.isinf().tolist() == [[False, True, False], [False, True, False], [False, False, False]]


def batch(lengths: list[int]) -> torch.Tensor:
    features = torch.randn(len(lengths), max(lengths), NUM_MELS, generator=torch.Generator().manual_seed(0))
    for row, length in zip(features, lengths, strict=True):
        row[length:] = 0
    return features


def test_targets_come_from_the_unmasked_frames_and_the_blocks_see_the_mask() -> None:
    torch.manual_seed(0)
    encoder, objective = Encoder(SMALL).eval(), Contrastive(CONFIG, SMALL.dim).eval()
    features, lengths = batch([120, 90]), torch.tensor([120, 90])
    seen: list[torch.Tensor] = []
    encoder.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    loss, _ = objective(encoder, features, lengths, 0.0, np.random.default_rng(0))
    stem = encoder.frames(features)
    hidden = (seen[0] == objective.mask_vector).all(2)
    assert 0.3 < hidden.float().mean() < 0.7 and not hidden[1, 30:].any()
    torch.testing.assert_close(seen[0][~hidden], stem[~hidden])
    # The same loss from its parts: what the blocks make of the masked frames, the stem as it was.
    rng = np.random.default_rng(0)
    frames = torch.tensor([40, 30])
    mask = span_mask([40, 30], CONFIG.mask, rng)
    assert torch.equal(mask, hidden)
    guessed = unseen(mask, frames)
    distractors = sample_distractors(guessed.sum(1).tolist(), CONFIG.distractors, rng)
    context = encoder.context(torch.where(mask[..., None], objective.mask_vector, stem), frames)
    again, _ = objective.losses(context[guessed], stem[guessed], distractors, 1.0)
    torch.testing.assert_close(loss, again)


def test_a_few_steps_of_learning_tell_frames_apart() -> None:
    torch.manual_seed(0)
    encoder, objective = Encoder(SMALL), Contrastive(CONFIG, SMALL.dim)
    # One sound of 300 ms after the other, so that a hidden frame can be guessed from its neighbours.
    sounds = torch.randn(4, 10, 1, NUM_MELS).expand(4, 10, 30, NUM_MELS).reshape(4, 300, NUM_MELS)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *objective.parameters()], lr=1e-2)
    found = []
    for step in range(60):
        loss, report = objective(
            encoder, sounds, torch.tensor([300] * 4), step / 60, np.random.default_rng(step)
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append([float(report["contrastive"]), float(report["right"])])
    (loss_before, _), (loss_after, right) = np.mean(found[:10], 0), np.mean(found[-10:], 0)
    assert loss_after < loss_before - 0.15
    assert right > 2 / 11  # a guess among 1 + 10 is right in 1 of 11 cases
    assert report["perplexity"] > 4  # it did not help itself by making all targets the same


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_same_losses_as_transformers(training: bool) -> None:
    transformers = pytest.importorskip(
        "transformers", reason="the judge is not installed: pip install transformers"
    )
    torch.manual_seed(0)
    judge = transformers.Wav2Vec2ForPreTraining(
        transformers.Wav2Vec2Config(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            conv_dim=(16, 16), conv_stride=(5, 4), conv_kernel=(10, 4), num_feat_extract_layers=2,
            num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, num_codevector_groups=2,
            num_codevectors_per_group=5, codevector_dim=8, proj_codevector_dim=12, num_negatives=6,
            hidden_dropout=0.0, activation_dropout=0.0, attention_dropout=0.0, feat_proj_dropout=0.0,
            feat_quantizer_dropout=0.0, layerdrop=0.0, mask_time_prob=0.05,
        )
    ).train(training)  # fmt: skip
    judge.set_gumbel_temperature(0.9)
    config = ContrastiveConfig(
        quantizer=QuantizerConfig(groups=2, entries=5, code_dim=8), out_dim=12, distractors=6
    )
    ours = Contrastive(config, 16).train(training)
    ours.norm = torch.nn.Identity()  # theirs is part of the feature projection
    with torch.no_grad():
        torch.nn.init.normal_(judge.quantizer.codevectors)
        ours.quantizer.scores.load_state_dict(judge.quantizer.weight_proj.state_dict())
        ours.quantizer.codebooks.copy_(judge.quantizer.codevectors.view(2, 5, 4))
        ours.quantizer.out.load_state_dict(judge.project_q.state_dict())
        ours.project.load_state_dict(judge.project_hid.state_dict())
    waveform = torch.randn(2, 1_010)
    frames = 50
    # Training draws noise for every frame there, for masked ones here: the same where all are masked.
    mask = torch.ones(2, frames, dtype=torch.bool) if training else torch.rand(2, frames) < 0.5
    distractors = sample_distractors(mask.sum(1).tolist(), 6, np.random.default_rng(0))
    places = mask.flatten().nonzero().flatten()
    negatives = torch.zeros(2, frames, 6, dtype=torch.int64)
    negatives[mask] = places[distractors]

    torch.manual_seed(1)
    theirs = judge(waveform, mask_time_indices=mask, sampled_negative_indices=negatives)
    inner = judge.wav2vec2(waveform, mask_time_indices=mask)
    torch.manual_seed(1)
    loss, report = ours.losses(inner.last_hidden_state[mask], inner.extract_features[mask], distractors, 0.9)
    count = mask.sum()
    torch.testing.assert_close(report["contrastive"], theirs.contrastive_loss.detach() / count)
    torch.testing.assert_close(report["perplexity"], theirs.codevector_perplexity.detach())
    torch.testing.assert_close(loss, theirs.loss / count)
    loss.backward()
    (theirs.loss / count).backward()
    torch.testing.assert_close(ours.project.weight.grad, judge.project_hid.weight.grad)
    torch.testing.assert_close(ours.quantizer.out.weight.grad, judge.project_q.weight.grad)
    if training:
        torch.testing.assert_close(ours.quantizer.scores.weight.grad, judge.quantizer.weight_proj.weight.grad)

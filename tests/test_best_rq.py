"""BEST-RQ: random codes by hand, and an encoder that learns to name them."""

import math

import numpy as np
import torch

from asr.model.encoder import Encoder, EncoderConfig
from asr.model.features import NUM_MELS
from asr.model.masking import span_mask, unseen
from asr.training.best_rq import BestRq, BestRqConfig, RandomProjectionQuantizer

SMALL = EncoderConfig(dim=32, bottleneck=16, dilations=(1, 2), statistics_after=(1,), statistics_dim=8)
CONFIG = BestRqConfig(codes=64, code_dim=8)


def test_codes_by_hand() -> None:
    quantizer = RandomProjectionQuantizer(BestRqConfig(codes=4, code_dim=2), stride=2)
    # The first mel of the first feature frame is x, the second mel of the second is y.
    quantizer.projection.zero_()
    quantizer.projection[0, 0] = quantizer.projection[NUM_MELS + 1, 1] = 1
    quantizer.codes.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]))
    features = torch.zeros(1, 7, NUM_MELS)
    for i, (x, y) in enumerate([(0.1, 0.02), (-3, 99), (-9, 5)]):
        features[0, 2 * i, 0], features[0, 2 * i + 1, 1] = x, y
    features[0, 6, 0] = -1  # a last frame that is half beyond the end
    assert quantizer(features).tolist() == [[0, 1, 2, 2]]


def test_nearest_code_by_the_definition() -> None:
    quantizer = RandomProjectionQuantizer(CONFIG, stride=3)
    features = torch.randn(2, 30, NUM_MELS, generator=torch.Generator().manual_seed(0))
    found = quantizer(features)
    for row in range(2):
        for frame in range(10):
            x = features[row, 3 * frame : 3 * frame + 3].flatten()
            x = (x - x.mean()) @ quantizer.projection
            x = x / math.sqrt(float((x * x).sum()))
            distances = [float(((code - x) ** 2).sum()) for code in quantizer.codes]
            assert found[row, frame] == int(np.argmin(distances))


def test_codes_are_fixed_by_their_seed_and_never_trained() -> None:
    one, same, other = (BestRq(BestRqConfig(codes=64, seed=s), 32, 3) for s in (1, 1, 2))
    assert torch.equal(one.quantizer.codes, same.quantizer.codes)
    assert torch.equal(one.quantizer.projection, same.quantizer.projection)
    assert not torch.equal(one.quantizer.codes, other.quantizer.codes)
    assert [name for name, _ in one.quantizer.named_parameters()] == []
    torch.testing.assert_close(one.quantizer.codes.norm(dim=1), torch.ones(64))
    # Xavier's bound.
    bound = math.sqrt(6 / (3 * NUM_MELS + CONFIG.code_dim * 2))
    assert 0.95 * bound < one.quantizer.projection.abs().max() <= bound


def test_a_frame_has_its_code_in_any_batch() -> None:
    quantizer = RandomProjectionQuantizer(CONFIG, stride=3)
    features = torch.randn(2, 40, NUM_MELS)
    features[1, 20:] = 0
    assert torch.equal(quantizer(features)[1, :7], quantizer(features[1:, :20])[0])


def test_noise_uses_most_codes_and_its_level_does_not_matter() -> None:
    quantizer = RandomProjectionQuantizer(CONFIG, stride=3)
    features = torch.randn(1, 6_000, NUM_MELS)
    codes = quantizer(features)
    assert len(codes.unique()) > 60
    levels = 10 * torch.randn(1, 2_000, 1).repeat_interleave(3, 1)
    assert (quantizer(features + levels) == codes).float().mean() > 0.99


def test_only_masked_frames_are_asked_and_only_they_are_hidden() -> None:
    torch.manual_seed(0)
    encoder, objective = Encoder(SMALL).eval(), BestRq(CONFIG, SMALL.dim, SMALL.stride)
    features, lengths = torch.randn(2, 150, NUM_MELS), torch.tensor([150, 100])
    features[1, 100:] = 0
    loss, report = objective(encoder, features, lengths, 0.0, np.random.default_rng(0))
    frames = torch.tensor([50, 34])
    mask = span_mask([50, 34], CONFIG.mask, np.random.default_rng(0))
    context = encoder.context(
        torch.where(mask[..., None], objective.mask_vector, encoder.frames(features)), frames
    )
    log_probs = objective.name(context).log_softmax(2).detach()
    total, right, asked = 0.0, 0, unseen(mask, frames).nonzero().tolist()
    for row, frame in asked:
        code = int(objective.quantizer(features)[row, frame])
        total -= float(log_probs[row, frame, code])
        right += int(log_probs[row, frame].argmax()) == code
    assert math.isclose(loss.item(), total / len(asked), rel_tol=1e-4)
    assert math.isclose(report["right"].item(), right / len(asked), rel_tol=1e-4)


def test_a_few_steps_of_learning_name_some_frames() -> None:
    torch.manual_seed(0)
    encoder, objective = Encoder(SMALL), BestRq(CONFIG, SMALL.dim, SMALL.stride)
    # One sound of 600 ms after the other, so that a hidden frame can be guessed from its neighbours.
    sounds = torch.randn(4, 5, 1, NUM_MELS).expand(4, 5, 60, NUM_MELS).reshape(4, 300, NUM_MELS)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *objective.parameters()], lr=1e-2)
    found = []
    for step in range(50):
        loss, report = objective(encoder, sounds, torch.tensor([300] * 4), 0.0, np.random.default_rng(step))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append([float(loss.detach()), float(report["right"])])
    (loss_before, _), (loss_after, right) = np.mean(found[:5], 0), np.mean(found[-10:], 0)
    assert loss_after < loss_before - 1
    assert right > 0.2  # the most frequent code would be right in one case of 10

"""Features do not depend on what else is in the batch, nor on level and microphone."""

import pytest
import torch

from asr.model.features import HOP_LENGTH, NUM_MELS, LogMel, normalize_features, num_frames


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def test_alone_equals_in_a_padded_batch() -> None:
    features = LogMel()
    long, short = noise(16_000), noise(7_777, 1)
    batch = torch.zeros(2, 16_000)
    batch[0], batch[1, :7_777] = long, short
    together, lengths = features(batch, torch.tensor([16_000, 7_777]))
    alone, (count,) = features(short[None], torch.tensor([7_777]))
    assert lengths.tolist() == [101, 49]
    assert count == 49 == num_frames(torch.tensor(7_777)) == 7_777 // HOP_LENGTH + 1
    torch.testing.assert_close(together[1, :49], alone[0], atol=1e-4, rtol=1e-4)
    assert together.shape == (2, 101, NUM_MELS)


def test_a_tone_is_loudest_in_its_own_band() -> None:
    time = torch.arange(16_000) / 16_000
    bands = [
        int(LogMel()(torch.sin(2 * torch.pi * hz * time)[None], torch.tensor([16_000]))[0][0, 50].argmax())
        for hz in (200, 1_000, 4_000)
    ]
    assert bands[0] < bands[1] < bands[2]


def test_normalised_features_forget_level_and_microphone() -> None:
    quiet = LogMel()(noise(16_000)[None], torch.tensor([16_000]))[0]
    # Ten times louder through a microphone with its own frequency response.
    other = quiet + 4.6 + torch.linspace(-2, 2, NUM_MELS)
    louder = LogMel()(10 * noise(16_000)[None], torch.tensor([16_000]))[0]
    lengths = torch.tensor([101])
    torch.testing.assert_close(
        normalize_features(quiet, lengths), normalize_features(louder, lengths), atol=1e-3, rtol=1e-3
    )
    torch.testing.assert_close(
        normalize_features(quiet, lengths), normalize_features(other, lengths), atol=1e-3, rtol=1e-3
    )


def test_padding_is_zero_and_does_not_count() -> None:
    features = torch.randn(2, 30, NUM_MELS) - 5
    lengths = torch.tensor([30, 11])
    normal = normalize_features(features, lengths)
    assert normal[1, 11:].abs().max() == 0
    torch.testing.assert_close(normal[1, :11], normalize_features(features[1:, :11], lengths[1:])[0])
    assert normal[0].mean(0).abs().max() < 1e-4
    assert normal[0].square().mean() == pytest.approx(1, abs=1e-2)

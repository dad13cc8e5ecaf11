"""An utterance's frames do not depend on the batch that it comes in."""

import pytest
import torch

from asr.model.encoder import Block, Encoder, EncoderConfig, PhoneModel, UtteranceStatistics
from asr.model.features import NUM_MELS

SMALL = EncoderConfig(dim=32, bottleneck=16, dilations=(1, 2, 3), statistics_after=(2,), statistics_dim=8)


def batch(lengths: list[int]) -> torch.Tensor:
    features = torch.randn(len(lengths), max(lengths), NUM_MELS, generator=torch.Generator().manual_seed(0))
    for row, length in zip(features, lengths, strict=True):
        row[length:] = 0
    return features


def trained_looking(network: torch.nn.Module) -> torch.nn.Module:
    """Random values where a fresh network has zeros, so that nothing is switched off."""
    for parameter in network.parameters():
        if parameter.abs().sum() == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.mark.parametrize("seed", range(4))
def test_batch_equals_single(seed: int) -> None:
    torch.manual_seed(seed)
    network = trained_looking(PhoneModel(SMALL, 11))
    lengths = [1, 2, 3, *torch.randint(4, 150, (5,)).tolist()]
    features = batch(lengths)
    together, frames = network(features, torch.tensor(lengths))
    for i, length in enumerate(lengths):
        alone, count = network(features[i : i + 1, :length], torch.tensor([length]))
        assert frames[i] == count[0] == -(-length // SMALL.stride)
        torch.testing.assert_close(together[i, : frames[i]], alone[0], atol=1e-4, rtol=1e-4)


def test_log_probs_are_normalised_and_float32() -> None:
    log_probs, _ = PhoneModel(SMALL, 11)(batch([9, 5]), torch.tensor([9, 5]))
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs.exp().sum(2), torch.ones(2, 3))


def test_a_block_sees_its_dilation_to_each_side() -> None:
    torch.manual_seed(0)
    block = trained_looking(Block(8, 4, dilation=3))
    x = torch.randn(64, 20, 8)
    changed = x.clone()
    changed[:, 10] += torch.randn(64, 8)
    mask = torch.ones(64, 20, 1)
    moved = (block(x, mask) - block(changed, mask)).abs().sum((0, 2))
    assert moved.nonzero().flatten().tolist() == [7, 10, 13]


def test_utterance_statistics_start_as_identity_and_ignore_padding() -> None:
    x = torch.randn(2, 10, 8)
    mask = torch.ones(2, 10, 1)
    statistics = UtteranceStatistics(8, 4)
    torch.testing.assert_close(statistics(x, mask), x)
    trained_looking(statistics)
    mask[1, 6:] = 0
    x[1, 6:] = 99
    torch.testing.assert_close(statistics(x * mask, mask)[1, :6], statistics(x[1:, :6], mask[1:, :6])[0])


def test_frame_rate() -> None:
    assert EncoderConfig(stride=3).frame_s == 0.03
    lengths = Encoder(SMALL).output_lengths(torch.tensor([0, 1, 3, 4, 300]))
    assert lengths.tolist() == [0, 1, 1, 2, 100]


def test_an_encoder_of_another_size() -> None:
    assert EncoderConfig.of_size(512, 256, 12) == EncoderConfig()
    small = EncoderConfig.of_size(8, 4, 2)
    assert small.dilations == (1, 2) and small.statistics_after == (1,)
    for sizes in ((0, 4, 2), (8, 0, 2), (8, 4, 0)):
        with pytest.raises(ValueError, match="cannot have 0 channels or blocks"):
            EncoderConfig.of_size(*sizes)


@pytest.mark.parametrize("dilation", [1, 3])
def test_convolution_as_a_product_is_the_convolution(dilation: int) -> None:
    block = Block(24, 16, dilation)
    torch.nn.init.normal_(block.taps_bias)
    h = torch.randn(3, 20, 24)
    torch.testing.assert_close(block._convolve_as_product(h), block._convolve(h), atol=1e-5, rtol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        half = block._convolve_as_product(h)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), block._convolve(h), atol=0.05, rtol=0.05)

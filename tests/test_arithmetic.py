"""Products in 8 bits: near those in 32, and the same for an utterance in any company."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_encoder import SMALL, batch, trained_looking

from asr.model import checkpoint
from asr.model.arithmetic import Int8Linear, computes_in_bf16, computes_in_int8
from asr.model.checkpoint import AcousticModel
from asr.model.encoder import Block, Int8Block, PhoneModel
from asr.phones import PhoneSet

PHONES = PhoneSet(("<blk>", "p", "t", "k"))

needs_int8 = pytest.mark.skipif(
    "x86" not in torch.backends.quantized.supported_engines, reason="no products of 8 bits on this processor"
)


def test_a_processor_multiplies_one_kind_best() -> None:
    cpu = torch.device("cpu")
    assert not (computes_in_bf16(cpu) and computes_in_int8(cpu))
    assert computes_in_bf16(torch.device("cuda")) and not computes_in_int8(torch.device("cuda"))


@pytest.mark.parametrize(
    ("capability", "bf16", "engines", "expected"),
    [
        ("AVX2", False, ["x86"], True),
        ("AVX512", False, ["x86"], True),
        ("AVX512", True, ["x86"], False),
        ("DEFAULT", False, ["x86"], False),
        ("AVX2", False, ["qnnpack"], False),
    ],
)
def test_8_bits_where_nothing_is_faster(
    monkeypatch: pytest.MonkeyPatch, capability: str, bf16: bool, engines: list[str], expected: bool
) -> None:
    monkeypatch.setattr("asr.model.arithmetic.computes_in_bf16", lambda device: bf16)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", engines)
    assert computes_in_int8(torch.device("cpu")) is expected


@needs_int8
@pytest.mark.parametrize("biased", [True, False])
def test_a_linear_layer_in_8_bits(biased: bool) -> None:
    torch.manual_seed(1)
    # Rows of very different sizes, one of them nothing.
    weight = torch.randn(6, 64) * torch.tensor([1e-3, 0.1, 1.0, 10.0, 100.0, 0.0])[:, None]
    bias = torch.randn(6) if biased else None
    x = torch.randn(2, 30, 64)
    engine = torch.backends.quantized.engine
    found, expected = Int8Linear(weight, bias)(x), torch.nn.functional.linear(x, weight, bias)
    assert torch.backends.quantized.engine == engine
    # Of 255 steps: half of one in what comes in; of 100 or so half of one in the weights.
    error = (found - expected).square().mean((0, 1)).sqrt()
    assert (error <= 0.03 * (weight.norm(dim=1) + 1e-6)).all()


@needs_int8
def test_no_sum_of_two_products_is_cut_off() -> None:
    """All values and weights the largest that there are: of one sign, of both, an odd number of them."""
    x = torch.full((3, 65), 2.0)
    x[1] = -2.0
    x[2, ::2] = -2.0
    weight = torch.full((4, 65), 0.5)
    weight[1] = -0.5
    weight[2, 1::2] = -0.5
    weight[3, 1::2] = 0.0
    found, expected = Int8Linear(weight, None)(x), x @ weight.T
    torch.testing.assert_close(found, expected, atol=0.65, rtol=0.01)


@needs_int8
def test_a_block_in_8_bits_does_nearly_the_same() -> None:
    torch.manual_seed(2)
    block = trained_looking(Block(64, 32, dilation=2))
    x, mask = torch.randn(2, 40, 64), torch.ones(2, 40, 1)
    mask[1, 25:] = 0
    with torch.inference_mode():
        moved, expected = Int8Block(block)(x, mask) - x, block(x, mask) - x
    assert (moved - expected).norm() < 0.04 * expected.norm()


@needs_int8
def test_a_network_in_8_bits_hears_nearly_the_same() -> None:
    torch.manual_seed(3)
    network = trained_looking(PhoneModel(SMALL, 11))
    features, lengths = batch([90, 90]), torch.tensor([90, 90])
    with torch.inference_mode():
        expected, _ = network(features, lengths)
        network.encoder.to_int8()
        found, frames = network(features, lengths)
        network.encoder.to_int8()  # again: nothing more
        assert torch.equal(network(features, lengths)[0], found)
    assert frames.tolist() == [30, 30]
    assert (found.exp() - expected.exp()).abs().max() < 0.02 and not torch.equal(found, expected)


@needs_int8
def test_an_utterance_is_heard_alike_in_any_company(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "computes_in_int8", lambda device: True)
    monkeypatch.setattr("asr.model.arithmetic.computes_in_bf16", lambda device: False)
    torch.manual_seed(4)
    model = AcousticModel(trained_looking(PhoneModel(SMALL, len(PHONES))), PHONES, torch.device("cpu"))
    assert model.one_by_one
    noise = np.random.default_rng(1).standard_normal(48_000).astype(np.float32)
    # The second is as loud again and again as long.
    waveforms = [noise[:20_000] / 10, noise[8_000:] / 5, noise[:0]]
    log_probs, lengths = model.log_probs(waveforms)
    assert lengths.tolist() == [42, 84, 34] and log_probs.shape == (3, 84, len(PHONES))
    for row, length, waveform in zip(log_probs, lengths, waveforms, strict=True):
        alone, count = model.log_probs([waveform])
        assert count[0] == length
        torch.testing.assert_close(alone[0], row[:length])


def test_a_model_on_disk_is_not_touched_by_how_it_is_computed(tmp_path: Path) -> None:
    """Trainings go on from what `load_network` gives: float32 whatever the processor likes."""
    network = PhoneModel(SMALL, len(PHONES))
    checkpoint.save_model(tmp_path, network, PHONES)
    loaded, _ = checkpoint.load_network(tmp_path)
    assert all(isinstance(block, Block) for block in loaded.encoder.blocks)

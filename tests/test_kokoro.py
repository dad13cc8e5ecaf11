"""Kokoro's network in torch: its weights out of small ONNX graphs, its parts against what they stand for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from asr.model.arithmetic import computes_in_bf16
from asr.training.kokoro_model import KokoroModel, spread
from asr.training.kokoro_vocoder import SAMPLE_RATE, Block, Generator, SnakeBlock, StyledNorm, snake
from asr.training.kokoro_weights import load_kokoro_weights, read_weights

RNG = np.random.default_rng(1)


def _graph(nodes: list[onnx.NodeProto], arrays: dict[str, np.ndarray], inputs: list[str]) -> onnx.ModelProto:
    def floats(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)

    graph = helper.make_graph(
        nodes,
        "graph",
        [floats(name) for name in inputs],
        [floats(nodes[-1].output[0])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def _floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def _bytes(*shape: int) -> np.ndarray:
    return RNG.integers(0, 128, shape, np.uint8)


def test_lstm_gates_are_in_torch_order():
    """The reference evaluator runs ONNX's own LSTM; the file has its weights transposed and in 8 bits."""
    w, r = (RNG.integers(-127, 128, shape, np.int8) for shape in ((2, 5, 16), (2, 4, 16)))
    scales = {"w_scale": _floats(2) / 100, "r_scale": _floats(2) / 100}
    bias, x = _floats(2, 32), _floats(7, 1, 5)
    whole = {
        "w": (w * scales["w_scale"][:, None, None]).transpose(0, 2, 1).astype(np.float32),
        "r": (r * scales["r_scale"][:, None, None]).transpose(0, 2, 1).astype(np.float32),
        "b": bias,
    }
    node = helper.make_node("LSTM", ["x", *whole], ["y"], hidden_size=4, direction="bidirectional")
    expected = ReferenceEvaluator(_graph([node], whole, ["x"])).run(None, {"x": x})[0]

    zero = np.zeros(2, np.int8)
    arrays = {"w_quantized": w, "r_quantized": r, "b": bias, "zero": zero, **scales}
    names = ["x", "w_quantized", "r_quantized", "b", "", "", "", "", "w_scale", "zero", "r_scale", "zero"]
    node = helper.make_node("DynamicQuantizeLSTM", names, ["/encoder/predictor/lstm/LSTM_output_0"])
    weights = read_weights(_graph([node], arrays, ["x"]).SerializeToString())
    lstm = torch.nn.LSTM(5, 4, bidirectional=True)
    lstm.load_state_dict({name: weights[f"predictor.lstm.{name}"] for name in lstm.state_dict()})
    actual = lstm(torch.from_numpy(x))[0].detach().numpy()
    assert np.allclose(actual, expected.transpose(0, 2, 1, 3).reshape(7, 1, 8), atol=1e-5)


def test_convolutions_and_matrices_are_dequantised_and_named():
    arrays = {
        "/encoder/text_encoder/cnn.0/Mul_quantized": _bytes(3, 2, 5),
        "/encoder/text_encoder/cnn.0/Mul_scale": np.float32(0.5),
        "zero": np.uint8(60),
        "onnx::MatMul_7_quantized": _bytes(4, 6),
        "onnx::MatMul_7_scale": _floats(6),
        "zeros": _bytes(6),
        "encoder.text_encoder.cnn.0.0.bias": _floats(3),
        "encoder.text_encoder.embedding.weight_quantized": RNG.integers(-127, 128, (9, 4), np.int8),
        "encoder.text_encoder.embedding.weight_scale": np.float32(0.25),
    }
    conv, matrix, table = (arrays[name].astype(np.float32) for name in arrays if name.endswith("_quantized"))
    nodes = [
        helper.make_node(kind, ["x", name, "z", zero], [output])
        for kind, name, zero, output in (
            (
                "ConvInteger",
                "/encoder/text_encoder/cnn.0/Mul_quantized",
                "zero",
                "/encoder/text_encoder/cnn.0/cnn.0.0/o",
            ),
            ("MatMulInteger", "onnx::MatMul_7_quantized", "zeros", "/encoder/F0.1/norm1/fc/Gemm_o"),
        )
    ]
    weights = read_weights(_graph(nodes, arrays, ["x", "z"]).SerializeToString())
    assert np.allclose(weights["text_encoder.cnn.0.0.weight"], (conv - 60) * 0.5)
    assert np.allclose(weights["text_encoder.cnn.0.0.bias"], arrays["encoder.text_encoder.cnn.0.0.bias"])
    expected = (matrix - arrays["zeros"]) * arrays["onnx::MatMul_7_scale"]
    assert np.allclose(weights["predictor.F0.1.norm1.fc.weight"], expected.T)
    assert np.allclose(weights["text_encoder.embedding.weight"], table * 0.25)


def test_another_file_is_refused():
    node = helper.make_node("Relu", ["x"], ["y"])
    with pytest.raises(ValueError, match=r"not the Kokoro model, it has no .*fetch it again"):
        load_kokoro_weights(KokoroModel(), _graph([node], {}, ["x"]).SerializeToString())


@torch.inference_mode()
def test_styled_norm_is_an_instance_norm():
    norm, x, style = StyledNorm(6), torch.randn(1, 6, 50) * 3 + 2, torch.randn(1, 128)
    gain, shift = norm.fc(style)[..., None].chunk(2, 1)
    assert torch.allclose(norm(x, style), (1 + gain) * F.instance_norm(x) + shift, atol=1e-5)


def test_snake():
    x, a = torch.randn(1, 3, 9), torch.tensor([0.3, 1.0, 2.0]).view(1, 3, 1)
    assert torch.allclose(snake(x.clone(), a), x + torch.sin(a * x) ** 2 / a, atol=1e-6)


@torch.inference_mode()
def test_blocks_keep_or_double_the_frames():
    style = torch.randn(1, 128)
    assert SnakeBlock(8, 7)(torch.randn(1, 8, 20), style).shape == (1, 8, 20)
    assert Block(8, 12, upsample=True)(torch.randn(1, 8, 20), style).shape == (1, 12, 40)
    same = Block(8, 8)
    same.conv2.weight.zero_(), same.conv2.bias.zero_()
    x = torch.randn(1, 8, 20)
    assert torch.allclose(same(x, style), x / 2**0.5)


@torch.inference_mode()
def test_the_excitation_sounds_at_the_pitch_where_it_is_voiced():
    generator = Generator()
    linear = generator.m_source["l_linear"]
    linear.weight.copy_(torch.eye(9)[:1]), linear.bias.zero_()
    pitch = torch.full((1, 1, 80), 220.0)
    pitch[..., 40:] = 5.0
    wave = generator.excitation(pitch)[0]
    assert wave.shape == (SAMPLE_RATE,) and not wave[SAMPLE_RATE // 2 :].any()
    assert wave[: SAMPLE_RATE // 2].abs().max() == pytest.approx(np.tanh(0.1), abs=1e-3)
    assert torch.fft.rfft(wave[: SAMPLE_RATE // 2]).abs().argmax() * 2 == 220


@torch.inference_mode()
def test_a_spectrum_becomes_its_waveform_again():
    """Half as loud again, see inverse_basis. Only angles within 1 radian can be written as sines."""
    generator = Generator()
    wave = torch.randn(1, 1000)
    magnitude, angle = generator.spectrum(wave).split(11, 1)
    angle = angle.clamp(-1, 1)
    known = torch.istft(magnitude * torch.exp(1j * angle), 20, 5, window=generator.window)
    actual = generator.waveform(torch.cat((magnitude.log(), angle.asin()), 1))
    assert torch.allclose(actual[20:-20], 1.5 * known[0, 20:-20], atol=1e-4)


def test_frames_of_tokens():
    durations = torch.tensor([2, 1, 3])
    assert spread(durations).tolist() == [0, 0, 1, 2, 2, 2]
    assert spread(durations, 4).tolist() == [0, 0, 1, 2, 2, 2, 2, 2]
    assert durations.tolist() == [2, 1, 3]


@pytest.mark.slow
def test_slow_speech_is_longer():
    torch.manual_seed(1)
    model, tokens, style = KokoroModel().eval(), torch.randint(178, (1, 6)), torch.randn(1, 256)
    whole = model(tokens, style)
    assert whole.isfinite().all() and len(whole) % 600 == 0
    assert len(model(tokens, style, 0.5)) > 1.5 * len(whole)
    model.multiple = 7
    assert len(model(tokens, style)) % (7 * 600) == 0


@pytest.mark.slow
@pytest.mark.skipif(not computes_in_bf16(torch.device("cpu")), reason="takes minutes without units for bf16")
def test_half_precision_sounds_the_same():
    torch.manual_seed(1)
    model, tokens, style = KokoroModel().eval(), torch.randint(178, (1, 6)), torch.randn(1, 256)
    whole = model(tokens, style)
    model.decoder.cast(torch.bfloat16)
    half = model(tokens, style)
    assert half.dtype == torch.float32 and half.shape == whole.shape
    assert torch.corrcoef(torch.stack((half, whole)))[0, 1] > 0.9

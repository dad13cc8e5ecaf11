"""The weights of Kokoro-82M out of its int8 ONNX file, as floats under the names of its modules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from onnx import GraphProto

_HAVE_WEIGHTS = {"Conv", "ConvInteger", "ConvTranspose", "MatMul", "MatMulInteger"}
_LSTM = "DynamicQuantizeLSTM"
# Where the graph's names differ from those of the modules in kokoro_model.py.
_RENAMED = (
    (re.compile(r"^encoder\.(F0|N|F0_proj|N_proj|shared)\b"), r"predictor.\1"),
    (re.compile(r"^encoder\."), ""),
    (re.compile(r"^decoder\.decoder\."), "decoder."),
    (re.compile(r"^bert\.encoder\.albert_layer_groups\.0\.albert_layers\.0\."), "bert.layer."),
    (re.compile(r"^bert\.(encoder|embeddings)\."), "bert."),
)


def load_kokoro_weights(model: nn.Module, onnx_file: bytes) -> None:
    """Raises ValueError where the file has not all of them, and as `read_weights`."""
    weights = read_weights(onnx_file)
    missing = sorted(model.state_dict().keys() - weights.keys())
    if missing:
        raise ValueError(f"this ONNX file is not the Kokoro model, it has no {missing[0]}: fetch it again")
    model.load_state_dict({name: weights[name] for name in model.state_dict()})


def read_weights(onnx_file: bytes) -> dict[str, Tensor]:
    """Float32 weights by module and parameter name, and other constants of the graph.

    Weights w were stored as (q - zero_point) * scale in 8 bits; the activations, which onnxruntime rounds to
    8 bits as well, stay floats here. Raises ValueError where onnx is not installed.
    """
    try:
        import onnx  # of the extra [train], so only once there is a model to read
    except ImportError:
        raise ValueError("reading Kokoro needs onnx: pip install onnx") from None

    graph = onnx.load_from_string(onnx_file).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = {_rename(name): array for name, array in arrays.items() if array.dtype == np.float32}
    weights |= dict(_of_tables(arrays)) | dict(_of_layers(graph, arrays))
    return {name: torch.tensor(array, dtype=torch.float32) for name, array in weights.items()}


def _of_tables(arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Embeddings (symbol, feature)."""
    for name, table in arrays.items():
        if name.endswith("embedding.weight_quantized") or name.endswith("embeddings.weight_quantized"):
            name = name.removesuffix("_quantized")
            yield _rename(name), table.astype(np.float32) * arrays[f"{name}_scale"]


def _of_layers(graph: GraphProto, arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Weights as torch has them; they are named after the node that uses them."""
    for node in graph.node:
        if node.op_type == _LSTM:
            name = _module(node.output[0])
            w, r = (_dequantize(arrays, node.input[i], node.input[9 + 2 * (i - 1)]) for i in (1, 2))
            yield from _of_lstm(name, w, r, arrays[node.input[3]])
        elif node.op_type in _HAVE_WEIGHTS and node.input[1] in arrays:
            zero_point = node.input[3] if node.op_type.endswith("Integer") else ""
            weight = _dequantize(arrays, node.input[1], zero_point)
            yield f"{_module(node.output[0])}.weight", weight.T if "MatMul" in node.op_type else weight


def _of_lstm(name: str, w: np.ndarray, r: np.ndarray, bias: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Parameters of a bidirectional nn.LSTM: `w` (2, input, 4 h), `r` (2, h, 4 h), `bias` (2, 8 h)."""
    for direction, suffix in enumerate(("", "_reverse")):
        input_bias, hidden_bias = np.split(bias[direction], 2)
        for kind, array in (
            ("weight_ih", w[direction].T),
            ("weight_hh", r[direction].T),
            ("bias_ih", input_bias),
            ("bias_hh", hidden_bias),
        ):
            i, o, f, c = np.split(array, 4)  # ONNX's order of the gates; torch's is i, f, c, o
            yield f"{name}.{kind}_l0{suffix}", np.concatenate([i, f, c, o])


def _dequantize(arrays: dict[str, np.ndarray], name: str, zero_point: str) -> np.ndarray:
    array = arrays[name]
    if array.dtype == np.float32:
        return array
    zero, scale = (arrays[zero_point].astype(np.float32), arrays[name.removesuffix("_quantized") + "_scale"])
    if array.ndim == 3 and zero.ndim:  # an LSTM's, one for each direction
        zero, scale = zero.reshape(2, 1, -1), scale.reshape(2, 1, -1)
    return (array.astype(np.float32) - zero) * scale


def _module(output: str) -> str:
    """'/encoder/text_encoder/cnn.0/cnn.0.0/Conv_output_0' -> 'text_encoder.cnn.0.0'."""
    parts = output.strip("/").split("/")[:-1]
    parts = [a for a, b in zip(parts, [*parts[1:], ""], strict=True) if not b.startswith(f"{a}.")]
    return _rename(".".join(parts))


def _rename(name: str) -> str:
    for pattern, new in _RENAMED:
        name = pattern.sub(new, name)
    return name

"""In how many bits a processor multiplies matrices: 16 where it has units for bf16, else 8 where it is an
x86-64, else 32."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_INT8 = "x86"  # torch's name for its kernels of 8 bits (FBGEMM and oneDNN)


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16; elsewhere it would only be slower, up to fifteen times."""
    return device.type == "cuda" or _processor_has_bf16()


@functools.cache
def _processor_has_bf16() -> bool:
    if torch.backends.cpu.get_cpu_capability() == "AMX":
        return True
    flags = Path("/proc/cpuinfo")
    return flags.exists() and "avx512_bf16" in flags.read_text()


def autocast(device: torch.device) -> torch.autocast:
    """Products in bf16, where the hardware multiplies it: a context manager."""
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bf16(device))


def computes_in_int8(device: torch.device) -> bool:
    """Whether products of 8 bits are faster than any others: twice as fast as float32 with AVX2, more with
    VNNI."""
    if device.type != "cpu" or computes_in_bf16(device):
        return False
    has_kernels = _INT8 in torch.backends.quantized.supported_engines
    return has_kernels and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


class Int8Linear(nn.Module):
    """A linear layer for inference: weights in 8 bits with a scale for each row, what comes in in 8 bits with
    a scale and a zero for each call."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """(out, in) and (out,) float32."""
        super().__init__()
        weight = weight.detach()
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        steps = torch.quantize_per_channel(weight, _row_scales(weight), zeros, 0, torch.qint8)
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = _INT8  # for what is packed now
        try:
            self._packed = torch.ops.quantized.linear_prepack(steps, bias)
        finally:
            torch.backends.quantized.engine = before

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) float32 -> (..., out) float32."""
        product: Tensor = torch.ops.quantized.linear_dynamic(x, self._packed, False)
        return product


def _row_scales(weight: Tensor) -> Tensor:
    """What a step of each row's weights is, (out,): as little as 127 steps of the largest allow.

    AVX2 without VNNI multiplies two neighbours by 8 bits without sign and adds both products in 16 bits, cut
    off where they exceed these. So no two of the same sign may have more than 128 steps together.
    """
    pairs = F.pad(weight, (0, weight.shape[1] % 2)).unflatten(1, (-1, 2))
    largest = torch.stack([side.clamp_min(0).sum(2).amax(1) for side in (pairs, -pairs)]).amax(0)
    return (largest / 127).clamp_min(torch.finfo(torch.float32).tiny)

"""Weights on disk: safetensors with 32, 16 or 8 bits a number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_SCALE = ".scale"


def save_weights(state: Mapping[str, Tensor], path: Path, dtype: torch.dtype) -> None:
    """`dtype`: float32, float16, or int8. As int8 each row of a matrix has a scale of its own, its largest
    number divided by 127, in NAME.scale; what is no matrix takes 16 bits."""
    stored: dict[str, Tensor] = {}
    for name, values in state.items():
        values = values.detach()
        if dtype is not torch.int8:
            stored[name] = values.to(dtype).contiguous()
        elif values.ndim == 2:
            scale = (values.float().abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
            stored[name] = (values.float() / scale[:, None]).round().to(torch.int8).contiguous()
            stored[name + _SCALE] = scale
        else:
            stored[name] = values.half().contiguous()
    save_file(stored, path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Float32, whatever they were saved as. Raises SafetensorError for a file that is none, ValueError
    for 8 bits without their scale, RuntimeError for scales that do not fit their matrix."""
    stored = load_file(path)
    in_8_bits = [name for name, values in stored.items() if values.dtype is torch.int8]
    if missing := [name for name in in_8_bits if name + _SCALE not in stored]:
        raise ValueError(f"{missing[0]} has 8 bits and no scale")
    scales = {name: stored.pop(name + _SCALE) for name in in_8_bits}
    return {
        name: values.float() * scales[name].float()[:, None] if name in scales else values.float()
        for name, values in stored.items()
    }

"""Weights on disk: safetensors with 32, 16 or 8 bits a number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_SCALE = ".scale"
_GROUP = 64  # numbers of a row that share a scale


def save_weights(state: Mapping[str, Tensor], path: Path, dtype: torch.dtype) -> None:
    """`dtype`: float32, float16, or int8. As int8 every 64 numbers of a matrix's row, or all of one that is
    no multiple of 64, have a scale, the largest of them divided by 127, in NAME.scale (rows, groups); what is
    no matrix takes 16 bits."""
    stored: dict[str, Tensor] = {}
    for name, values in state.items():
        values = values.detach()
        if dtype is not torch.int8:
            stored[name] = values.to(dtype).contiguous()
        elif values.ndim == 2:
            size = _GROUP if values.shape[1] % _GROUP == 0 else values.shape[1]
            groups = values.float().unflatten(1, (-1, size))
            scale = (groups.abs().amax(2) / 127).clamp_min(torch.finfo(torch.float32).tiny)
            stored[name] = (groups / scale[..., None]).round().flatten(1).to(torch.int8).contiguous()
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
        name: _scaled(values, scales[name]) if name in scales else values.float()
        for name, values in stored.items()
    }


def _scaled(steps: Tensor, scale: Tensor) -> Tensor:
    """(rows, columns) int8 and (rows, groups) -> float32."""
    groups = steps.float().unflatten(1, (scale.shape[1], -1))
    return (groups * scale.float()[..., None]).flatten(1)

"""Muon (Jordan et al. 2024) for processors that do not multiply bf16."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from asr.model.arithmetic import computes_in_bf16


def make_muon(matrices: Iterable[nn.Parameter], rate: float) -> torch.optim.Muon:
    """torch's own where the processor multiplies bf16."""
    matrices = list(matrices)
    fast = all(computes_in_bf16(matrix.device) for matrix in matrices)
    return (torch.optim.Muon if fast else Float32Muon)(matrices, lr=rate, momentum=0.95, weight_decay=0.01)


class Float32Muon(torch.optim.Muon):
    """torch's Muon, with the same state, for which the processor need not know bf16: its own iteration is in
    bf16 everywhere, and takes minutes a step where that is computed by plain loops."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            momentum = group["momentum"]
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                average = state["momentum_buffer"].lerp_(matrix.grad, 1 - momentum)
                update = matrix.grad.lerp(average, momentum) if group["nesterov"] else average
                update = orthogonalized(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
                # A tall matrix gets longer steps (Jordan et al. 2024, as torch has it by default).
                rate = float(group["lr"]) * max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                matrix.mul_(1 - float(group["lr"]) * group["weight_decay"]).add_(update, alpha=-rate)


def orthogonalized(
    matrix: Tensor, coefficients: tuple[float, float, float], steps: int, least: float
) -> Tensor:
    """(rows, columns) of any size -> float32, with singular values near one in place of its own: steps of the
    Newton-Schulz iteration (Jordan et al. 2024); `least`: its norm counts as that at least."""
    first, third, fifth = coefficients
    x = matrix.float()
    if is_tall := x.shape[0] > x.shape[1]:
        x = x.T
    x = x / x.norm().clamp_min(least)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=third, alpha=fifth), x, beta=first)
    return x.T if is_tall else x

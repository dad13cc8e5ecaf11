"""Muon in float32 does what torch's does in bf16."""

import pytest
import torch

from asr.training.muon import Float32Muon, make_muon, orthogonalized

SHAPES = ((12, 40), (40, 12), (16, 16))


def matrices() -> list[torch.nn.Parameter]:
    torch.manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def step(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def test_steps_are_those_of_torch() -> None:
    ours, theirs = matrices(), matrices()
    options = {"lr": 0.1, "momentum": 0.95, "weight_decay": 0.01}
    a, b = Float32Muon(ours, **options), torch.optim.Muon(theirs, **options)
    for i in range(3):
        before = [p.detach().clone() for p in ours]
        step(a, ours, i)
        step(b, theirs, i)
        for mine, other, old in zip(ours, theirs, before, strict=True):
            # bf16 has two decimals and a half.
            assert (mine - other).norm() < 0.03 * (i + 1) * (mine - old).norm()


def test_a_run_goes_on_with_either() -> None:
    """What one has saved the other takes."""
    parameters = matrices()
    theirs, ours = (kind(parameters, lr=0.1) for kind in (torch.optim.Muon, Float32Muon))
    step(theirs, parameters, 0)
    ours.load_state_dict(theirs.state_dict())
    saved = ours.state_dict()["state"]
    for i, parameter in enumerate(parameters):
        torch.testing.assert_close(saved[i]["momentum_buffer"], 0.05 * parameter.grad)
    first = [parameter.grad for parameter in parameters]
    step(ours, parameters, 1)
    for i, (parameter, before) in enumerate(zip(parameters, first, strict=True)):
        expected = 0.95 * 0.05 * before + 0.05 * parameter.grad
        torch.testing.assert_close(ours.state_dict()["state"][i]["momentum_buffer"], expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(2)
    update = orthogonalized(torch.randn(shape), (3.4445, -4.775, 2.0315), 5, 1e-7)
    assert update.shape == shape and update.dtype == torch.float32
    values = torch.linalg.svdvals(update)
    assert values.min() > 0.5 and values.max() < 1.3


@pytest.mark.parametrize(("bf16", "kind"), [(True, torch.optim.Muon), (False, Float32Muon)])
def test_the_processor_decides(monkeypatch: pytest.MonkeyPatch, bf16: bool, kind: type) -> None:
    monkeypatch.setattr("asr.training.muon.computes_in_bf16", lambda device: bf16)
    optimizer = make_muon(matrices(), 0.02)
    assert type(optimizer) is kind and optimizer.param_groups[0]["lr"] == 0.02

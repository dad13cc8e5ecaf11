"""Weights come back from disk as they were, within what their bits can tell."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from safetensors import SafetensorError
from safetensors.torch import save_file
from test_checkpoint import PHONES, SMALL
from typer.testing import CliRunner

from asr.model.checkpoint import AcousticModel, load_network, save_model
from asr.model.encoder import PhoneModel
from asr.model.neural_lm import NeuralLM, NeuralLMConfig, load_neural_lm, save_neural_lm
from asr.model.weights import load_weights, save_weights
from asr.training.sentences import train_tokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))
import average
import compress

STATE = {
    "matrix": torch.randn(40, 320, generator=torch.Generator().manual_seed(1))
    * torch.logspace(-9, 2, 40)[:, None],
    "bias": torch.linspace(-3, 3, 40),
    "table": torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(2)),
    "odd": torch.randn(5, 30, generator=torch.Generator().manual_seed(3)),
    "nothing": torch.zeros(3, 5),
}


def test_float32_is_exact(tmp_path: Path) -> None:
    save_weights(STATE, tmp_path / "w", torch.float32)
    found = load_weights(tmp_path / "w")
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], values) for name, values in STATE.items())


def test_8_bits_are_off_by_half_a_step_at_most(tmp_path: Path) -> None:
    save_weights(STATE, tmp_path / "w", torch.int8)
    found = load_weights(tmp_path / "w")
    assert found.keys() == STATE.keys()
    matrix = STATE["matrix"]
    # 64 numbers of a row have a scale: the small ones are as exact as the large ones.
    step = (matrix.unflatten(1, (5, 64)).abs().amax(2) / 127).repeat_interleave(64, 1)
    assert ((found["matrix"] - matrix).abs() <= 0.501 * step).all()
    odd = STATE["odd"]
    assert ((found["odd"] - odd).abs() <= 0.501 * odd.abs().amax(1, keepdim=True) / 127).all()
    assert torch.equal(found["nothing"], STATE["nothing"])
    for name in ("bias", "table"):
        torch.testing.assert_close(found[name], STATE[name], atol=2e-3, rtol=1e-3)
    save_weights(STATE, tmp_path / "half", torch.float16)
    assert (tmp_path / "w").stat().st_size < 0.6 * (tmp_path / "half").stat().st_size


def test_what_is_no_file_of_weights(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"weights")
    with pytest.raises(SafetensorError):
        load_weights(tmp_path / "w")
    save_file({"a": torch.ones(3, 2, dtype=torch.int8), "a.scale": torch.ones(4, 1)}, tmp_path / "w")
    with pytest.raises(RuntimeError):
        load_weights(tmp_path / "w")
    save_file({"a": torch.ones(3, 2, dtype=torch.int8)}, tmp_path / "w")
    with pytest.raises(ValueError, match="a has 8 bits and no scale"):
        load_weights(tmp_path / "w")


def test_a_name_that_looks_like_a_scale_is_a_weight(tmp_path: Path) -> None:
    state = {"norm": torch.ones(3, 2), "norm.scale": torch.full((3,), 2.0)}
    save_weights(state, tmp_path / "w", torch.float32)
    found = load_weights(tmp_path / "w")
    assert found.keys() == state.keys() and torch.equal(found["norm"], state["norm"])


def test_a_compressed_acoustic_model_hears_the_same(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = PhoneModel(SMALL, len(PHONES))
    network.phone_lm = torch.randn((len(PHONES),) * 3).log_softmax(2)
    save_model(tmp_path / "large", network, PHONES)
    run = CliRunner().invoke(app(), [str(tmp_path / "large"), "--out", str(tmp_path / "small")])
    assert run.exit_code == 0 and run.output.startswith(f"{tmp_path / 'small'}: "), run.output
    small, phones = load_network(tmp_path / "small")
    assert phones == PHONES and small.phone_lm is not None
    torch.testing.assert_close(small.phone_lm, network.phone_lm, atol=1e-2, rtol=1e-2)
    waveform = np.random.default_rng(1).standard_normal(16_000).astype(np.float32) / 10
    device = torch.device("cpu")
    heard, expected = (AcousticModel(n, PHONES, device).log_probs([waveform])[0] for n in (small, network))
    assert (heard.exp() - expected.exp()).abs().max() < 0.02
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("large", "small")]
    assert sizes[1] < 0.7 * sizes[0]


def test_a_compressed_language_model_reads_the_same(tmp_path: Path) -> None:
    torch.manual_seed(4)
    tokenizer = train_tokenizer(["the cat sat on the mat", "a dog"], 25)
    network = NeuralLM(NeuralLMConfig(pieces=25, dim=32, layers=2, heads=2))
    save_neural_lm(tmp_path / "large", network, tokenizer)
    run = CliRunner().invoke(app(), [str(tmp_path / "large"), "--out", str(tmp_path / "small")])
    assert run.exit_code == 0, run.output
    small, its_tokenizer = load_neural_lm(tmp_path / "small")
    assert its_tokenizer.to_str() == tokenizer.to_str()
    for (name, a), (_, b) in zip(small.named_parameters(), network.named_parameters(), strict=True):
        assert (a - b).abs().max() <= 0.01 * b.abs().max() + 1e-6, name


def test_language_models_are_averaged(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["the cat sat on the mat", "a dog"], 25)
    networks = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        networks.append(NeuralLM(NeuralLMConfig(pieces=25, dim=32, layers=2, heads=2)))
        save_neural_lm(tmp_path / str(seed), networks[-1], tokenizer, torch.float32)
    folders = [tmp_path / "1", tmp_path / "2"]
    average.main(folders, tmp_path / "mean", [1.0, 3.0])
    mean, its_tokenizer = load_neural_lm(tmp_path / "mean")
    assert its_tokenizer.to_str() == tokenizer.to_str()
    first, second = (network.state_dict() for network in networks)
    for name, weights in mean.state_dict().items():
        assert torch.allclose(weights, 0.25 * first[name] + 0.75 * second[name], atol=1e-3), name
    other = train_tokenizer(["the dog sat on the mat", "a goat"], 25)
    save_neural_lm(tmp_path / "2", networks[1], other)
    application = typer.Typer()
    application.command()(average.main)
    run = CliRunner().invoke(application, [*map(str, folders), "--out", str(tmp_path / "none")])
    assert run.exit_code == 2 and "2: not of the same sizes and pieces as" in run.stderr.replace("\n", " ")


def test_no_model_is_one_line(tmp_path: Path) -> None:
    run = CliRunner().invoke(app(), [str(tmp_path / "none"), "--out", str(tmp_path / "small")])
    assert run.exit_code == 2
    assert len(run.stderr.strip().splitlines()) == 1 and "no acoustic model here" in run.stderr


def app() -> typer.Typer:
    application = typer.Typer()
    application.command()(compress.main)
    return application

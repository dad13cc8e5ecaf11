"""What is saved is what is loaded, and what is no model is said to be none."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from asr.model.checkpoint import AcousticModel, load_model, load_network, save_model
from asr.model.encoder import EncoderConfig, PhoneModel
from asr.phones import PhoneSet

SMALL = EncoderConfig(dim=32, bottleneck=16, dilations=(1, 2), statistics_after=(1,), statistics_dim=8)
PHONES = PhoneSet(("<blk>", "p", "t", "k"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_model(tmp_path / "model", PhoneModel(SMALL, len(PHONES), auxiliary=True), PHONES)
    return tmp_path / "model"


def test_save_and_load(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = PhoneModel(SMALL, len(PHONES), auxiliary=True)
    save_model(tmp_path / "model", network, PHONES, dtype=torch.float32)
    loaded, phones = load_network(tmp_path / "model")
    assert phones == PHONES
    assert loaded.encoder.config == SMALL
    features, lengths = torch.randn(2, 30, 80), torch.tensor([30, 12])
    torch.testing.assert_close(loaded(features, lengths)[0], network(features, lengths)[0])


def test_the_phone_ngram_goes_with_the_weights(tmp_path: Path) -> None:
    network = PhoneModel(SMALL, len(PHONES))
    network.phone_lm = torch.randn(4, 4, 4)
    save_model(tmp_path, network, PHONES, dtype=torch.float32)
    found = load_model(tmp_path).phone_lm
    assert found is not None
    np.testing.assert_array_equal(found, network.phone_lm.numpy())
    network.phone_lm = torch.zeros(5, 5, 5)
    save_model(tmp_path, network, PHONES)
    with pytest.raises(ValueError, match=r"the phone n-gram does not belong to the 4 tokens of phones\.txt"):
        load_model(tmp_path)
    network.phone_lm = None
    save_model(tmp_path, network, PHONES)
    assert load_model(tmp_path).phone_lm is None


def test_half_precision_on_disk_costs_next_to_nothing(folder: Path) -> None:
    assert (folder / "model.safetensors").stat().st_size < 2.2 * sum(
        p.numel() for n, p in load_network(folder)[0].named_parameters() if not n.startswith("frame")
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "phones.txt"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"no acoustic model here .{name}"):
        load_model(folder)


def test_phones_of_another_model_are_refused(folder: Path) -> None:
    (folder / "phones.txt").write_text("<blk>\np\nt\n", encoding="utf-8")
    with pytest.raises(ValueError, match="do not belong to the 3 tokens"):
        load_model(folder)


def test_a_configuration_of_another_model_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dim": 64}))
    with pytest.raises(ValueError, match=r"weights and config\.json disagree .*encoder\.stem\.weight"):
        load_model(folder)
    (folder / "config.json").write_text(json.dumps(config | {"heads": 4}))
    with pytest.raises(ValueError, match="not a model that this version can read"):
        load_model(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", "[1]"),
        ("config.json", '{"dim": "wide"}'),
        ("config.json", '{"dim": -1}'),
        ("phones.txt", "p\nt\nk\n"),
        ("phones.txt", ""),
    ],
)
def test_files_that_mean_nothing_are_refused(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="not a model that this version can read") as error:
        load_model(folder)
    assert str(error.value).startswith(f"{folder}: ") and "\n" not in str(error.value)


def test_damaged_weights_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a model that this version can read"):
        load_model(folder)


def test_log_probs_of_waveforms(folder: Path) -> None:
    model = load_model(folder)
    rng = np.random.default_rng(0)
    waveforms = [rng.normal(0, 0.1, n).astype(np.float32) for n in (16_000, 40_000, 1, 0)]
    log_probs, lengths = model.log_probs(waveforms)
    assert log_probs.dtype == torch.float32
    assert lengths.tolist() == [34, 84, 34, 34]  # the shortest are padded to a second
    torch.testing.assert_close(log_probs.exp().sum(2)[1], torch.ones(84))
    alone, _ = model.log_probs(waveforms[:1])
    torch.testing.assert_close(log_probs[0, :34], alone[0], atol=0.05, rtol=0.05)  # bf16 where there is any
    assert model.log_probs([])[0].shape == (0, 0, 4)


def test_the_embedded_model_is_whole() -> None:
    model = load_model()
    assert isinstance(model, AcousticModel)
    assert len(model.phones) == 47
    assert model.phone_lm is not None and model.phone_lm.shape == (47, 47, 47)
    assert model.frame_s == pytest.approx(0.03)

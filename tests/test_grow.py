"""A deeper model says what the shallower one said, and its new blocks can learn."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_recipes import SMALL

from asr.model.checkpoint import load_network, save_model
from asr.model.encoder import PhoneModel
from asr.phones import PhoneSet

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))
import grow


@pytest.mark.parametrize("every", [1, 2, 3])
def test_what_it_says_stays(every: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = replace(SMALL, dilations=(1, 1, 2, 2, 3), statistics_after=(2, 4))
    network = PhoneModel(config, 7).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    network.phone_lm = torch.randn(7, 7, 7)
    phones = PhoneSet(("<blk>", *"ptkfsx"))
    save_model(tmp_path / "old", network, phones, torch.float32)
    grow.main(tmp_path / "old", tmp_path / "new", every)
    before, after = load_network(tmp_path / "old")[0].eval(), load_network(tmp_path / "new")[0].eval()
    assert len(after.encoder.blocks) == 5 + 5 // every
    assert after.encoder.config.dilations[: every + 1] == (
        *config.dilations[:every],
        config.dilations[every - 1],
    )
    features, lengths = torch.randn(2, 90, 80), torch.tensor([90, 50])
    # The weights went through 16 bits.
    expected, found = (model(features, lengths)[0] for model in (before, after))
    assert torch.allclose(expected, found, atol=0.02) and not torch.allclose(
        expected[0], expected[1], atol=0.1
    )
    assert torch.allclose(after.phone_lm, before.phone_lm, atol=1e-2)
    after(features, lengths)[0].exp().square().sum().backward()
    new = [block for block in after.encoder.blocks if not block.out.weight.any()]
    assert len(new) == 5 // every and all(block.out.weight.grad.any() for block in new)


def test_a_wider_one_says_the_same_and_its_new_channels_learn(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = PhoneModel(SMALL, 7)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    network.phone_lm = torch.randn(7, 7, 7)
    wide = grow.wider(network, 24)
    assert wide.encoder.config == replace(SMALL, bottleneck=24) and wide.phone_lm is network.phone_lm
    features, lengths = torch.randn(2, 90, 80), torch.tensor([90, 50])
    said = wide(features, lengths)[0]
    torch.testing.assert_close(said, network(features, lengths)[0])
    said.exp().square().sum().backward()
    old = SMALL.bottleneck
    assert all(b.out.weight.grad[:, old:].any() and b.taps[old:].any() for b in wide.encoder.blocks)
    with pytest.raises(ValueError, match=f"--bottleneck must be above the {old}"):
        grow.wider(network, old)


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no acoustic model here"):
        grow.main(tmp_path, tmp_path / "new")


def test_deeper_or_wider(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        grow.cli(out=tmp_path / "new", every=2, bottleneck=600)
    assert "one at a time" in capsys.readouterr().err

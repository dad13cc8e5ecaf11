"""Pretraining in miniature: the loss falls, an interrupted run goes on, fine-tuning starts from it."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training_data import write_prepared
from test_unlabelled import write_unlabelled

from asr.model.checkpoint import load_network, save_model, start_network
from asr.model.encoder import EncoderConfig, PhoneModel
from asr.model.quantizer import QuantizerConfig
from asr.phones import PhoneSet
from asr.training.batches import BatchConfig
from asr.training.best_rq import BestRqConfig
from asr.training.contrastive import ContrastiveConfig
from asr.training.loop import make_accelerator
from asr.training.stepper import StepConfig
from asr.training.unlabelled import UnlabelledBatch, UnlabelledConfig

SMALL = EncoderConfig(dim=32, bottleneck=16, dilations=(1, 2), statistics_after=(1,), statistics_dim=8)
RECIPES = Path(__file__).parents[1] / "recipes"
OBJECTIVES = ("contrastive", "best-rq")


@pytest.fixture
def pretrain(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(RECIPES))
    import pretrain

    return pretrain


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    write_unlabelled(tmp_path / "unlabelled", [400, 300, 250, 350, 200, 500])
    return tmp_path / "unlabelled"


def config_of(pretrain: Any, objective: str, prepared: Path, out: Path, hours: float) -> Any:
    return pretrain.Config(
        prepared=(prepared,),
        out=out,
        objective=pretrain.Objective(objective),
        hours=hours,
        encoder=SMALL,
        contrastive=ContrastiveConfig(
            quantizer=QuantizerConfig(groups=2, entries=8, code_dim=8), out_dim=16, distractors=10
        ),
        best_rq=BestRqConfig(codes=32, code_dim=8),
        batch=UnlabelledConfig(seconds=10.0),
        step=StepConfig(warmup_steps=5),
        report_every=1,
    )


@pytest.mark.parametrize(("objective", "falls_by"), [("contrastive", 0.1), ("best-rq", 0.5)])
def test_the_loss_falls(
    objective: str, falls_by: float, pretrain: Any, unlabelled: Path, tmp_path: Path
) -> None:
    pretrain.main(config_of(pretrain, objective, unlabelled, tmp_path / "run", hours=0.25))
    lines = (tmp_path / "run" / "losses.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) > 60
    assert sum(losses[-15:]) / 15 < sum(losses[:15]) / 15 - falls_by


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(
    objective: str,
    pretrain: Any,
    unlabelled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def train(out: Path) -> dict[str, Any]:
        pretrain.main(config_of(pretrain, objective, unlabelled, out, hours=0.03))
        return torch.load(out / "last.pt", weights_only=True)

    whole = train(tmp_path / "whole")
    step = pretrain.Run.step

    def interrupted(run: Any, batches: list[UnlabelledBatch]) -> dict[str, float]:
        if run.stepper.steps == 5:
            raise KeyboardInterrupt
        return step(run, batches)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(pretrain.Run, "step", interrupted)
        train(tmp_path / "parts")
    assert "the same command goes on" in capsys.readouterr().err
    torch.manual_seed(99)  # nothing may depend on what was drawn before
    parts = train(tmp_path / "parts")
    assert parts["counters"] == whole["counters"] and whole["counters"][0] > 8
    for part in ("network", "objective"):
        for name, value in whole[part].items():
            assert torch.equal(parts[part][name], value), name


def test_a_run_of_another_objective_is_refused(pretrain: Any, unlabelled: Path, tmp_path: Path) -> None:
    pretrain.main(config_of(pretrain, "best-rq", unlabelled, tmp_path / "run", hours=0.001))
    with pytest.raises(ValueError, match="a run with --objective best-rq"):
        pretrain.main(config_of(pretrain, "contrastive", unlabelled, tmp_path / "run", hours=0.001))


def test_a_run_with_another_codebook_is_refused(pretrain: Any, unlabelled: Path, tmp_path: Path) -> None:
    config = config_of(pretrain, "best-rq", unlabelled, tmp_path / "run", hours=0.001)
    pretrain.main(config)
    with pytest.raises(ValueError, match="another --init or --codes: give that, or another --out"):
        pretrain.main(dataclasses.replace(config, best_rq=BestRqConfig(codes=16, code_dim=8)))


def test_a_model_to_start_from_brings_its_sizes(pretrain: Any, unlabelled: Path, tmp_path: Path) -> None:
    phones = PhoneSet.read(RECIPES.parent / "asr" / "pretrained" / "phones.txt")
    larger = PhoneModel(dataclasses.replace(SMALL, dim=48), len(phones))
    save_model(tmp_path / "larger", larger, phones)
    config = config_of(pretrain, "best-rq", unlabelled, tmp_path / "run", hours=0.001)
    pretrain.main(dataclasses.replace(config, init=tmp_path / "larger"))
    assert load_network(tmp_path / "run" / "encoder")[0].encoder.config.dim == 48


def test_fine_tuning_starts_from_the_pretrained_encoder(
    pretrain: Any, unlabelled: Path, tmp_path: Path
) -> None:
    import finetune

    pretrain.main(config_of(pretrain, "best-rq", unlabelled, tmp_path / "pretrained", hours=0.01))
    encoder = load_network(tmp_path / "pretrained" / "encoder")[0].encoder
    trained = torch.load(tmp_path / "pretrained" / "last.pt", weights_only=True)["network"]
    phones = finetune_phones(finetune)
    fresh = pretrain.Run(
        config_of(pretrain, "best-rq", unlabelled, tmp_path / "fresh", hours=0.01), phones, make_accelerator()
    )
    (tmp_path / "prepared").mkdir()
    write_prepared(tmp_path / "prepared")
    config = finetune.Config(
        prepared=(tmp_path / "prepared",),
        out=tmp_path / "tuned",
        init=tmp_path / "pretrained" / "encoder",
        batch=BatchConfig(seconds=6.0),
        hours=0.005,
    )
    begun = start_network(config.init, config.encoder, phones).encoder.state_dict()
    for name, value in encoder.state_dict().items():
        assert torch.equal(begun[name], value) and torch.equal(trained[f"encoder.{name}"], value), name
    changed = fresh.network.encoder.blocks[0].taps
    assert not torch.equal(changed, encoder.blocks[0].taps)
    finetune.main(config)
    assert (tmp_path / "tuned" / "average" / "model.safetensors").is_file()


def finetune_phones(finetune: Any) -> Any:
    return finetune.PhoneSet.read(RECIPES.parent / "asr" / "pretrained" / "phones.txt")


@pytest.mark.slow
def test_recordings_without_text_are_enough(data: Path, tmp_path: Path) -> None:
    rows = (data / "ljspeech" / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:6]
    (tmp_path / "set").mkdir()
    paths = [str(data / "ljspeech" / row.split("\t")[0]) for row in rows]
    (tmp_path / "set" / "all.tsv").write_text("\n".join(["path", *paths]) + "\n", encoding="utf-8")

    def run(recipe: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(RECIPES / recipe), *map(str, arguments)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=RECIPES.parent)

    prepared, out = tmp_path / "prepared", tmp_path / "run"
    done = run("prepare.py", "--data", tmp_path, "--manifest", "set/all.tsv", "--out", prepared, "--jobs", 1)
    assert done.returncode == 0, done.stderr[-2000:]
    common = ("--prepared", prepared, "--out", out, "--hours", 0.003, "--codes", 64)
    done = run("pretrain.py", *common)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(load_network(out / "encoder")[1]) > 40
    done = run("pretrain.py", *common, "--objective", "contrastive")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"asr: {out / 'last.pt'}: a run with --objective best-rq")

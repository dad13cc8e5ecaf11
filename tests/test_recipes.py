"""From recordings to a model that transcribes, in miniature; and interrupted trainings go on."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_training_data import write_prepared

from asr import Recognizer
from asr.model.checkpoint import load_network, save_model
from asr.model.encoder import EncoderConfig, PhoneModel
from asr.phones import PhoneSet
from asr.training.batches import Batch, BatchConfig

SMALL = EncoderConfig(dim=32, bottleneck=16, dilations=(1, 2), statistics_after=(1,), statistics_dim=8)
RECIPES = Path(__file__).parents[1] / "recipes"


def run(recipe: str, *arguments: str | Path) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(RECIPES / recipe), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=RECIPES.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_recordings_become_a_model(data: Path, tmp_path: Path) -> None:
    rows = (data / "ljspeech" / "dev.tsv").read_text(encoding="utf-8").splitlines()[:8]
    (tmp_path / "set").mkdir()
    fields = [row.split("\t") for row in rows]
    for row in fields[1:]:
        row[0] = str(data / "ljspeech" / row[0])
    (tmp_path / "set" / "train.tsv").write_text(
        "\n".join("\t".join(r) for r in fields) + "\n", encoding="utf-8"
    )
    prepared = tmp_path / "prepared"
    run("prepare.py", "--data", tmp_path, "--manifest", "set/train.tsv", "--out", prepared, "--jobs", 1)
    assert "7 utterances aligned, 0 not" in run("align.py", "--prepared", prepared, "--passes", 4)
    run(
        "finetune.py",
        "--prepared",
        prepared,
        "--development",
        prepared,
        "--out",
        tmp_path / "run",
        "--hours",
        0.02,
    )
    recognizer = Recognizer.load(model=tmp_path / "run" / "average", user_lexicon=False, device="cpu")
    transcript = recognizer.transcribe([fields[1][0]])[0]
    assert transcript.duration_s > 1
    judged = json.loads((tmp_path / "run" / "judged.jsonl").read_text().splitlines()[-1])
    assert judged["per"]["set/train"] > 0


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    (tmp_path / "prepared").mkdir()
    write_prepared(tmp_path / "prepared")
    return tmp_path / "prepared"


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_an_interrupted_training_goes_on_as_if_nothing_had_been(
    dropout: float,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))
    import finetune

    def train(out: Path) -> dict[str, torch.Tensor]:
        config = finetune.Config(
            prepared=prepared,
            out=out,
            hours=0.02,
            encoder=SMALL,
            batch=BatchConfig(seconds=6.0),
            dropout=dropout,
        )
        finetune.main(config)
        return torch.load(out / "last.pt", weights_only=True)

    whole = train(tmp_path / "whole")
    step = finetune.Run.step

    def interrupted(run: finetune.Run, batches: list[Batch]) -> dict[str, float]:
        if run.steps == 5:
            raise KeyboardInterrupt
        return step(run, batches)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(finetune.Run, "step", interrupted)
        train(tmp_path / "parts")
    assert "the same command goes on" in capsys.readouterr().err
    parts = train(tmp_path / "parts")
    assert parts["counters"] == whole["counters"]
    for part in ("network", "average"):
        for name, value in whole[part].items():
            assert torch.equal(parts[part][name], value), name


def test_an_interruption_amid_an_update_leaves_the_last_save(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))
    import finetune

    def weights() -> dict[str, torch.Tensor]:
        return torch.load(tmp_path / "run" / "last.pt", weights_only=True)["network"]

    config = finetune.Config(prepared=prepared, out=tmp_path / "run", hours=0.001, encoder=SMALL)
    finetune.main(config)
    before = weights()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)  # after the blocks' matrices have changed
    with pytest.raises(SystemExit):
        finetune.main(dataclasses.replace(config, hours=0.1))
    assert all(torch.equal(before[name], value) for name, value in weights().items())


@pytest.mark.slow
def test_evaluation_table(data: Path, tmp_path: Path) -> None:
    table = run("evaluate.py", "--data", data, "--limit", 2, "--json", tmp_path / "result.json")
    found = json.loads((tmp_path / "result.json").read_text())
    assert set(found) >= {"ljspeech", "librispeech_native", "librispeech_dev"}
    assert found["ljspeech"]["utterances"] == 2
    assert f"| ljspeech | 2 | {found['ljspeech']['words']} |" in table


def test_evaluation_without_sets_says_so(tmp_path: Path) -> None:
    command = [sys.executable, str(RECIPES / "evaluate.py"), "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=RECIPES.parent)
    assert done.returncode == 2
    assert f"{tmp_path}: none of the sets is there" in done.stderr


def test_the_average_of_two_models(tmp_path: Path) -> None:
    phones = PhoneSet(("<blk>", "p", "t"))
    networks = []
    for seed in range(2):
        torch.manual_seed(seed)
        networks.append(PhoneModel(SMALL, len(phones)))
        save_model(tmp_path / str(seed), networks[-1], phones, dtype=torch.float32)
    run("average.py", tmp_path / "0", tmp_path / "1", "--out", tmp_path / "both")
    both, _ = load_network(tmp_path / "both")
    expected = (networks[0].ctc.weight + networks[1].ctc.weight) / 2
    torch.testing.assert_close(both.ctc.weight, expected, atol=1e-3, rtol=1e-3)

"""From recordings to a model that transcribes, in miniature; and interrupted trainings go on."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from test_training_data import write_prepared

from asr import Recognizer
from asr.model.checkpoint import load_network, save_model
from asr.model.encoder import EncoderConfig, PhoneModel
from asr.phones import PhoneSet
from asr.training.batches import Batch, BatchConfig, BatchSource
from asr.training.ctc_crf import estimate_phone_ngram
from asr.training.objective import Loss, ObjectiveConfig, crf_loss
from asr.training.prepared import Alignments, Prepared

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


@pytest.fixture
def finetune(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(RECIPES))
    import finetune

    return finetune


def interrupt_at(finetune: Any, patch: pytest.MonkeyPatch, steps: int, error: type[BaseException]) -> None:
    step = finetune.Run.step

    def interrupted(run: Any, batches: list[Batch]) -> dict[str, float]:
        if run.steps == steps:
            raise error
        return step(run, batches)

    patch.setattr(finetune.Run, "step", interrupted)


EVERYTHING = ObjectiveConfig(loss=Loss.CTC_CRF, consistency=0.2, intermediate=0.3)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dropout": 0.2},
        {"objective": EVERYTHING, "batch": BatchConfig(seconds=6.0, copies=2), "accumulate": 2},
    ],
)
def test_an_interrupted_training_goes_on_as_if_nothing_had_been(
    changes: dict[str, Any],
    finetune: Any,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def train(out: Path) -> dict[str, torch.Tensor]:
        settings = {"hours": 0.02, "encoder": SMALL, "batch": BatchConfig(seconds=6.0)} | changes
        finetune.main(finetune.Config(prepared=prepared, out=out, **settings))
        return torch.load(out / "last.pt", weights_only=True)

    whole = train(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(finetune, patch, 5, KeyboardInterrupt)
        train(tmp_path / "parts")
    assert "the same command goes on from there" in capsys.readouterr().err
    torch.manual_seed(99)  # nothing may depend on what was drawn before
    parts = train(tmp_path / "parts")
    assert parts["counters"] == whole["counters"] and whole["counters"][0] > 7
    for part in ("network", "average"):
        for name, value in whole[part].items():
            assert torch.equal(parts[part][name], value), name


def test_a_failed_training_says_how_to_go_on(
    finetune: Any,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = finetune.Config(
        prepared=prepared, out=tmp_path / "run", encoder=SMALL, hours=0.1, save_every_s=0
    )
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        interrupt_at(finetune, patch, 3, RuntimeError)
        finetune.main(config)
    assert "the same command goes on from the last save, at most 0 s before" in capsys.readouterr().err
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["counters"][0] == 3
    finetune.main(config)
    assert "going on from step 3" in capsys.readouterr().err


def small_steps(finetune: Any, prepared: Path, out: Path) -> Any:
    """A training of five steps that take two batches each, within one epoch."""
    batch = BatchConfig(seconds=3.0)
    return finetune.Config(
        prepared=prepared, out=out, hours=0.006, encoder=SMALL, batch=batch, warmup_steps=3
    )


IN_EACH_PROCESS = """
import sys
from pathlib import Path
from pytest import MonkeyPatch
from test_recipes import RECIPES, interrupt_at, small_steps
sys.path.insert(0, str(RECIPES))
import finetune

prepared, out, *interrupted = sys.argv[1:]
for steps in interrupted:
    interrupt_at(finetune, MonkeyPatch(), int(steps), KeyboardInterrupt)
finetune.main(small_steps(finetune, Path(prepared), Path(out)))
"""


@pytest.mark.slow
def test_two_processes_learn_as_one_that_accumulates_and_go_on_exactly(
    finetune: Any, prepared: Path, tmp_path: Path
) -> None:
    config = small_steps(finetune, prepared, tmp_path / "one")
    finetune.main(dataclasses.replace(config, accumulate=2))
    (tmp_path / "two.py").write_text(IN_EACH_PROCESS, encoding="utf-8")
    launch = (
        "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
        tmp_path / "two.py", prepared, tmp_path / "two",
    )  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}

    def two(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, launch), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    done = two("2")
    assert done.returncode != 0 and done.stderr.count("the same command goes on from there") == 1, done.stderr
    assert torch.load(tmp_path / "two" / "last.pt", weights_only=True)["counters"][0] == 2
    done = two()
    assert done.returncode == 0 and "2 x cpu" in done.stderr, done.stderr[-2000:]
    found, expected = (torch.load(tmp_path / n / "last.pt", weights_only=True) for n in ("two", "one"))
    assert found["counters"] == expected["counters"] and found["counters"][:2] == (5, 0)
    for name, value in expected["network"].items():
        assert torch.equal(found["network"][name], value), name


def test_the_best_model_is_kept(
    finetune: Any, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = iter([0.5, 0.3, 0.4])
    judged = []

    def judge(self: object, network: PhoneModel) -> dict[str, float]:
        judged.append(network.ctc.bias.detach().clone())
        return {"a": next(rates), "b": 0.2}

    monkeypatch.setattr(finetune.Judge, "phone_error_rates", judge)
    config = finetune.Config(
        prepared=prepared, development=prepared, out=tmp_path, encoder=SMALL, hours=0.006,
        batch=BatchConfig(seconds=6.0), judge_every_hours=0.0025, warmup_steps=1,
    )  # fmt: skip
    finetune.main(config)
    assert len(judged) == 3
    best, last = (load_network(tmp_path / name)[0].ctc.bias for name in ("best", "average"))
    assert torch.equal(best, judged[1].half().float()) and torch.equal(last, judged[2].half().float())
    note = json.loads((tmp_path / "best" / "judged.json").read_text())
    assert (note["mean"], note["per"]) == (pytest.approx(0.25), {"a": 0.3, "b": 0.2})
    lines = (tmp_path / "judged.jsonl").read_text().splitlines()
    assert [json.loads(line)["per"]["a"] for line in lines] == [0.5, 0.3, 0.4]


def test_a_model_that_does_not_fit_is_refused(finetune: Any, prepared: Path, tmp_path: Path) -> None:
    common = {"prepared": prepared, "hours": 0.001}
    finetune.main(finetune.Config(out=tmp_path / "run", encoder=SMALL, **common))
    larger = dataclasses.replace(SMALL, dim=40)
    with pytest.raises(ValueError, match=r"last\.pt: another network: give its --init, or another --out"):
        finetune.main(finetune.Config(out=tmp_path / "run", encoder=larger, **common))
    save_model(tmp_path / "few", PhoneModel(SMALL, 3), PhoneSet(("<blk>", "p", "t")))
    with pytest.raises(ValueError, match="few: its phones are not those of the training data"):
        finetune.main(finetune.Config(out=tmp_path / "new", init=tmp_path / "few", **common))


def test_ctc_crf_after_ctc_lowers_its_loss(finetune: Any, prepared: Path, tmp_path: Path) -> None:
    common = {"prepared": prepared, "batch": BatchConfig(seconds=12.0), "warmup_steps": 5}
    finetune.main(finetune.Config(out=tmp_path / "ctc", encoder=SMALL, hours=0.03, **common))
    objective = ObjectiveConfig(loss=Loss.CTC_CRF)
    after = {"init": tmp_path / "ctc" / "average", "objective": objective, "hours": 0.05}
    finetune.main(finetune.Config(out=tmp_path / "crf", **after, **common))

    alignments = Alignments.open(prepared / "alignments.npz")
    source = BatchSource(Prepared.open(prepared), alignments, BatchConfig(mel_masks=0, time_width=0))
    ngram = estimate_phone_ngram((alignments.targets(i) for i in source.usable), 47)
    batch = next(source.epoch(0))

    def loss_of(folder: Path) -> float:
        network, _ = load_network(folder)
        with torch.no_grad():
            hidden, lengths = network.encoder(batch.features, batch.lengths)
            return crf_loss(network.ctc(hidden), lengths, batch, ngram).item()

    assert loss_of(tmp_path / "crf" / "average") < 0.85 * loss_of(tmp_path / "ctc" / "average")


def test_an_interruption_amid_an_update_leaves_the_last_save(
    finetune: Any, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_prepare_skips_and_counts_what_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))
    import prepare

    folder = tmp_path / "mine"
    (folder / "mia").mkdir(parents=True)
    for i, name in enumerate(("one", "two")):
        tone = 0.1 * np.sin(np.arange(8_000 * (i + 1)) / 5)
        soundfile.write(folder / "mia" / f"{name}.wav", tone, 16_000)
    (folder / "mia" / "broken.wav").write_bytes(b"RIFF, but no audio")
    for name in ("one", "two", "broken"):
        (folder / "mia" / f"{name}.txt").write_text(f"This is {name}", encoding="utf-8")

    prepare.cli(out=tmp_path / "out", folder=[folder], jobs=1)
    out, err = capfd.readouterr()
    assert "2 utterances, 0.00 h, 1 skipped" in out and "skipped: " in err and "broken.wav" in err
    prepared = Prepared.open(tmp_path / "out")
    assert [(u.id, u.set, u.speaker) for u in prepared.utterances] == [
        ("one", "mine", "mia"), ("two", "mine", "mia"),
    ]  # fmt: skip
    assert [u.text for u in prepared.utterances] == ["This is one", "This is two"]
    assert [len(prepared.frames(i)) for i in range(2)] == [51, 101]
    assert len(prepared.frames(1, "0.90")) == pytest.approx(101 / 0.9, abs=1)

    for name in ("one", "two"):
        (folder / "mia" / f"{name}.wav").unlink()
    with pytest.raises(SystemExit):
        prepare.cli(out=tmp_path / "none", folder=[folder], jobs=1)
    assert "none of the 1 recordings can be read" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no recordings: give --data, --manifest, --folder"),
        ({"librispeech": Path("x")}, "goes with --split"),
        ({"split": ["train"]}, "goes with --split"),
        ({"librispeech": Path("x"), "common_voice": Path("x"), "split": ["dev"]}, "one at a time"),
    ],
)
def test_prepare_says_what_it_needs(
    arguments: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))
    import prepare

    with pytest.raises(SystemExit):
        prepare.cli(out=tmp_path / "out", **arguments)
    assert message in capsys.readouterr().err

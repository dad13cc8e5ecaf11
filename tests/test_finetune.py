"""The fine-tuning recipe in miniature: it learns, goes on after an interruption, keeps the best, in two
processes as in one."""

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

from asr.model.checkpoint import load_network, save_model
from asr.model.encoder import EncoderConfig, PhoneModel
from asr.phones import PhoneSet
from asr.training.batches import Batch, BatchConfig, BatchSource
from asr.training.ctc_crf import estimate_phone_ngram
from asr.training.feature_augment import FeatureAugmentConfig
from asr.training.objective import Loss, ObjectiveConfig, crf_loss
from asr.training.prepared import Alignments, Prepared
from asr.training.stepper import StepConfig
from asr.training.waveform_augment import WaveformAugmentConfig
from asr.training.waveform_batches import WaveformBatchConfig

SMALL = EncoderConfig(dim=32, bottleneck=16, dilations=(1, 2), statistics_after=(1,), statistics_dim=8)
RECIPES = Path(__file__).parents[1] / "recipes"


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
        if run.stepper.steps == steps:
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
        finetune.main(finetune.Config(prepared=(prepared,), out=out, **settings))
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
        prepared=(prepared,), out=tmp_path / "run", encoder=SMALL, hours=0.1, save_every_s=0
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
        prepared=(prepared,),
        out=out,
        hours=0.006,
        encoder=SMALL,
        batch=batch,
        step=StepConfig(warmup_steps=3),
    )


IN_EACH_PROCESS = """
import sys
from pathlib import Path
from pytest import MonkeyPatch
from test_finetune import RECIPES, interrupt_at, small_steps
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
    assert done.returncode == 0 and "2 x cpu" in done.stderr, done.stderr
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
        prepared=(prepared,), development=prepared, out=tmp_path, encoder=SMALL, hours=0.006,
        batch=BatchConfig(seconds=6.0), judge_every_hours=0.0025, step=StepConfig(warmup_steps=1),
    )  # fmt: skip
    finetune.main(config)
    assert len(judged) == 3
    best, last = (load_network(tmp_path / name)[0].ctc.bias for name in ("best", "average"))
    assert torch.equal(best, judged[1].half().float()) and torch.equal(last, judged[2].half().float())
    note = json.loads((tmp_path / "best" / "judged.json").read_text())
    assert (note["mean"], note["per"]) == (pytest.approx(0.25), {"a": 0.3, "b": 0.2})
    lines = (tmp_path / "judged.jsonl").read_text().splitlines()
    assert [json.loads(line)["per"]["a"] for line in lines] == [0.5, 0.3, 0.4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": ObjectiveConfig(loss=Loss.CTC_CRF)}, "a run with --loss ctc: give that"),
        ({"batch": BatchConfig(seconds=9.0)}, "a run with --seconds 6.0: give that"),
        ({"batch": BatchConfig(seconds=6.0, seed=5)}, "a run with --seed 1: give that"),
        ({"batch": BatchConfig(seconds=6.0, copies=2)}, "only a run with --consistency"),
    ],
)
def test_a_run_of_another_kind_is_refused(
    changes: dict[str, Any], message: str, finetune: Any, prepared: Path, tmp_path: Path
) -> None:
    config = finetune.Config(
        prepared=(prepared,), out=tmp_path, encoder=SMALL, hours=0.001, batch=BatchConfig(seconds=6.0)
    )
    finetune.main(config)
    with pytest.raises(ValueError, match=message):
        finetune.main(dataclasses.replace(config, **changes))


def test_the_best_is_the_best_of_these_development_sets(
    finetune: Any, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = [{"easy": 0.1}, {"hard": 0.5}, {"hard": 0.6}]
    monkeypatch.setattr(finetune.Judge, "phone_error_rates", lambda self, network: rates.pop(0))
    for hours in (0.001, 0.008, 0.015):
        finetune.main(
            finetune.Config(
                prepared=(prepared,), development=prepared, out=tmp_path, encoder=SMALL, hours=hours
            )
        )
    assert not rates
    assert json.loads((tmp_path / "best" / "judged.json").read_text())["per"] == {"hard": 0.5}


def test_a_model_that_does_not_fit_is_refused(finetune: Any, prepared: Path, tmp_path: Path) -> None:
    common = {"prepared": (prepared,), "hours": 0.001}
    finetune.main(finetune.Config(out=tmp_path / "run", encoder=SMALL, **common))
    larger = dataclasses.replace(SMALL, dim=40)
    with pytest.raises(ValueError, match=r"last\.pt: another network: give its --init or sizes, or another"):
        finetune.main(finetune.Config(out=tmp_path / "run", encoder=larger, **common))
    save_model(tmp_path / "few", PhoneModel(SMALL, 3), PhoneSet(("<blk>", "p", "t")))
    with pytest.raises(ValueError, match="few: its phones are not those of the training data"):
        finetune.main(finetune.Config(out=tmp_path / "new", init=tmp_path / "few", **common))


def test_ctc_crf_after_ctc_lowers_its_loss(finetune: Any, prepared: Path, tmp_path: Path) -> None:
    common = {"prepared": (prepared,), "batch": BatchConfig(seconds=12.0), "step": StepConfig(warmup_steps=5)}
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

    phone_lm = load_network(tmp_path / "crf" / "average")[0].phone_lm
    assert phone_lm is not None
    torch.testing.assert_close(phone_lm.exp(), ngram.probs, rtol=0.01, atol=0)  # kept as 16-bit logs
    assert load_network(tmp_path / "ctc" / "average")[0].phone_lm is None
    assert loss_of(tmp_path / "crf" / "average") < 0.85 * loss_of(tmp_path / "ctc" / "average")


def test_an_interruption_amid_an_update_leaves_the_last_save(
    finetune: Any, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights() -> dict[str, torch.Tensor]:
        return torch.load(tmp_path / "run" / "last.pt", weights_only=True)["network"]

    config = finetune.Config(prepared=(prepared,), out=tmp_path / "run", hours=0.001, encoder=SMALL)
    finetune.main(config)
    before = weights()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)  # after the blocks' matrices have changed
    with pytest.raises(SystemExit):
        finetune.main(dataclasses.replace(config, hours=0.1))
    assert all(torch.equal(before[name], value) for name, value in weights().items())


def test_options_become_the_configuration(
    finetune: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(finetune, "main", seen.append)
    places = {"prepared": (tmp_path,), "out": tmp_path / "run"}
    finetune.cli(**places)
    assert seen.pop() == finetune.Config(**places)
    finetune.cli(
        **places, waveforms=True, noises=tmp_path, noise=0.3, lowest_snr=-5.0, rooms=0.2, warp=0.4,
        first_times=3,
    )  # fmt: skip
    assert seen.pop().waveforms == WaveformBatchConfig(
        seconds=BatchConfig.seconds, noises=tmp_path, first_times=3,
        augment=WaveformAugmentConfig(room=0.2, noise=0.3, warp=0.4, narrow=0.0, snr_db=(-5.0, 30.0)),
    )  # fmt: skip
    finetune.cli(
        **places, loss=Loss.CTC_CRF, consistency=0.2, intermediate=0.3, time_mask_scale=2.5, accumulate=3
    )
    config = seen.pop()
    assert (config.objective, config.accumulate) == (EVERYTHING, 3)
    assert (config.batch.copies, config.batch.time_every) == (2, 60)
    finetune.cli(
        **places, development=tmp_path / "dev", hours=3.0, dim=64, bottleneck=32, blocks=3, seconds=7.0,
        muon_rate=0.5, adam_rate=0.25, clip=2.0, dropout=0.3, warp=0.1, noise=0.2, narrow=0.4, mel_width=9,
        judge_every_hours=2.0, threads=2, seed=8,
    )  # fmt: skip
    assert seen.pop() == finetune.Config(
        **places, development=tmp_path / "dev", hours=3.0, encoder=EncoderConfig.of_size(64, 32, 3),
        batch=BatchConfig(
            seconds=7.0, mel_width=9, seed=8,
            augment=FeatureAugmentConfig(warp_probability=0.1, noise_probability=0.2, narrow_probability=0.4),
        ),
        step=StepConfig(muon_rate=0.5, adam_rate=0.25, clip=2.0, seed=8), dropout=0.3,
        judge_every_hours=2.0, threads=2,
    )  # fmt: skip
    for wrong, message in (
        ({"init": tmp_path, "dim": 64}, "for a new encoder: --init brings its own"),
        ({"time_mask_scale": 0.0}, "--time-mask-scale must be above 0, not 0"),
        ({"intermediate": 1.0}, "a share of the loss, from 0 to below 1"),
        ({"first_times": 2}, "--snippets are for --waveforms"),
        ({"snippets": 0.1}, "--snippets are for --waveforms"),
        ({"lowest_snr": 0.0}, "--snippets are for --waveforms"),
        ({"waveforms": True, "lowest_snr": 31.0}, "--lowest-snr must be at most 30 dB, not 31"),
        ({"waveforms": True, "noises": tmp_path}, "--noises needs --noise"),
    ):
        with pytest.raises(SystemExit):
            finetune.cli(**places, **wrong)
        assert message in capsys.readouterr().err


def spoken(folder: Path, count: int, seed: int) -> Path:
    """Recordings of noise, prepared with --waveforms, with known phones."""
    import align
    import prepare

    rng = np.random.default_rng(seed)
    folder.mkdir()
    rows = ["path\tphones"]
    for i in range(count):
        waveform = rng.normal(0, 0.1, int(rng.integers(16_000, 32_000)))
        soundfile.write(folder / f"r{i}.wav", waveform, 16_000)
        (folder / f"r{i}.txt").write_text("coffee")
        rows.append(f"r{i}.wav\tk ɔ f i")
    (folder / "phones.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    prepare.cli(out=folder / "prepared", folder=[folder], waveforms=True, jobs=1)
    align.cli(prepared=folder / "prepared", spoken=folder / "phones.tsv")
    return folder / "prepared"


def test_a_training_from_waveforms_of_two_folders_goes_on(
    finetune: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = (spoken(tmp_path / "real", 5, 1), spoken(tmp_path / "synthetic", 6, 2))
    waveforms = WaveformBatchConfig(seconds=6.0, first_times=2)

    def train(out: Path, prepared: tuple[Path, ...] = folders, **changes: Any) -> dict[str, torch.Tensor]:
        config = finetune.Config(
            prepared=prepared, out=out, encoder=SMALL, hours=0.02, waveforms=waveforms, save_every_s=0
        )
        finetune.main(dataclasses.replace(config, **changes))
        return torch.load(out / "last.pt", weights_only=True)["network"]

    whole = train(tmp_path / "whole")
    assert "11 of 11 utterances" in capsys.readouterr().err
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(finetune, patch, 6, KeyboardInterrupt)
        train(tmp_path / "parts")
    parts = train(tmp_path / "parts")
    assert all(torch.equal(weights, parts[name]) for name, weights in whole.items())
    with pytest.raises(ValueError, match="only a run with --waveforms goes on with it"):
        train(tmp_path / "parts", prepared=folders[:1], waveforms=None)
    with pytest.raises(ValueError, match="a run with --first-times 2: give that"):
        train(tmp_path / "parts", waveforms=WaveformBatchConfig(seconds=6.0))
    with pytest.raises(ValueError, match="several --prepared folders need --waveforms"):
        train(tmp_path / "new", waveforms=None)


def test_waveforms_and_consistency_exclude_each_other(
    finetune: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        finetune.cli(prepared=[tmp_path], out=tmp_path / "run", waveforms=True, consistency=0.2)
    assert "--waveforms makes no copies for --consistency" in capsys.readouterr().err

"""From recordings to a model that transcribes, in miniature."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import soundfile
import torch
from test_corpora import write_chapter

from asr import Recognizer, audio
from asr.evaluate import Evaluation, evaluate
from asr.manifest import Utterance
from asr.model.checkpoint import load_network, save_model
from asr.model.encoder import EncoderConfig, PhoneModel
from asr.phones import PhoneSet
from asr.training.prepared import Prepared

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


@pytest.mark.slow
def test_evaluation_table(data: Path, tmp_path: Path) -> None:
    table = run("evaluate.py", "--data", data, "--limit", 2, "--json", tmp_path / "result.json")
    found = json.loads((tmp_path / "result.json").read_text())
    assert set(found) >= {"ljspeech", "librispeech_native", "librispeech_dev"}
    assert found["ljspeech"]["utterances"] == 2
    assert f"| ljspeech | 2 | {found['ljspeech']['words']} |" in table


def test_a_telephone_carries_its_band_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))
    from evaluate import telephoned

    time_s = np.arange(16_000) / 16_000
    sound = sum(0.2 * np.sin(2 * np.pi * hertz * time_s) for hertz in (100, 1_000, 6_000))
    soundfile.write(tmp_path / "a.wav", sound, 16_000)
    found = telephoned(Utterance(path=tmp_path / "a.wav", text="hm"), tmp_path / "b.wav")
    assert found == Utterance(path=tmp_path / "b.wav", text="hm")
    assert soundfile.info(found.path).samplerate == 8_000 and soundfile.info(found.path).subtype == "ULAW"
    spectrum = np.abs(np.fft.rfft(audio.load(found.path)))[:8_000]
    assert spectrum.argmax() == pytest.approx(1_000, abs=2)
    assert max(spectrum[90:110].max(), spectrum[5_000:].max()) < 0.05 * spectrum.max()


def test_a_loud_tone_stays_a_tone_over_the_telephone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))
    from evaluate import telephoned

    square = np.sign(np.sin(2 * np.pi * 400 * np.arange(16_000) / 16_000))  # overshoots where it is filtered
    soundfile.write(tmp_path / "a.wav", square, 16_000)
    telephoned(Utterance(path=tmp_path / "a.wav"), tmp_path / "b.wav")
    waveform, _ = soundfile.read(tmp_path / "b.wav")
    assert np.abs(waveform).max() > 0.95
    spectrum = np.abs(np.fft.rfft(waveform)) ** 2
    harmonics = sum(spectrum[hertz - 5 : hertz + 6].sum() for hertz in range(400, 3_600, 400))
    assert harmonics > 0.95 * spectrum.sum()  # what wraps around is spread over all frequencies


@pytest.fixture
def tone_set(tmp_path: Path) -> Path:
    """A folder with one set of a recording and one that cannot be read."""
    folder = tmp_path / "data" / "ljspeech"
    folder.mkdir(parents=True)
    soundfile.write(folder / "tone.wav", 0.1 * np.sin(np.arange(8_000) / 3), 16_000)
    (folder / "broken.wav").write_bytes(b"RIFF, but no audio")
    (folder / "dev.tsv").write_text("path\ttext\ntone.wav\tHUM\nbroken.wav\tHUM\n", encoding="utf-8")
    return folder.parent


@pytest.mark.parametrize("telephone", [False, True])
def test_evaluation_hears_the_telephone_and_counts_what_it_cannot_read(
    telephone: bool,
    tone_set: Path,
    recognizer: Recognizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))
    import evaluate as recipe

    heard: list[tuple[Path, int]] = []

    def listen(recognizer: Recognizer, utterances: list[Utterance]) -> Evaluation:
        heard.append((utterances[0].path, soundfile.info(utterances[0].path).samplerate))
        return evaluate(recognizer, utterances)

    monkeypatch.setattr(recipe, "evaluate", listen)
    monkeypatch.setattr(recipe.Recognizer, "load", lambda **_: recognizer)
    recipe.cli(data=tone_set, telephone=telephone, json_file=tmp_path / "new" / "folder" / "result.json")
    ((path, rate),) = heard
    assert (path != tone_set / "ljspeech" / "tone.wav") is telephone and rate == (
        8_000 if telephone else 16_000
    )
    out, err = capsys.readouterr()
    assert "| ljspeech | 1 | 1 |" in out
    assert str(tone_set / "ljspeech" / "broken.wav") in err
    found = json.loads((tmp_path / "new" / "folder" / "result.json").read_text())
    assert found["ljspeech"]["utterances"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": Path("/nowhere")}, "/nowhere: none of the sets is there"),
        ({"model": "/nowhere"}, "/nowhere"),
    ],
)
def test_expected_errors_of_an_evaluation_are_one_line(
    arguments: dict[str, Any],
    message: str,
    tone_set: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))
    import evaluate as recipe

    with pytest.raises(SystemExit) as stopped:
        recipe.cli(**{"data": tone_set} | arguments)
    assert stopped.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "the set is left out" not in line]
    assert len(errors) == 1 and message in errors[0]


def test_the_average_of_two_models(tmp_path: Path) -> None:
    phones = PhoneSet(("<blk>", "p", "t"))
    networks = []
    for seed in range(2):
        torch.manual_seed(seed)
        networks.append(PhoneModel(SMALL, len(phones)))
        networks[-1].phone_lm = torch.full((3, 3, 3), float(seed))
        save_model(tmp_path / str(seed), networks[-1], phones, dtype=torch.float32)
    run("average.py", tmp_path / "0", tmp_path / "1", "--out", tmp_path / "both")
    both, _ = load_network(tmp_path / "both")
    assert both.phone_lm is not None and both.phone_lm.eq(1).all()
    expected = (networks[0].ctc.weight + networks[1].ctc.weight) / 2
    torch.testing.assert_close(both.ctc.weight, expected, atol=1e-3, rtol=1e-3)
    folders = (tmp_path / "0", tmp_path / "1")
    run("average.py", *folders, "--share", "0.25", "--share", "0.75", "--out", tmp_path / "both")
    expected = 0.25 * networks[0].ctc.weight + 0.75 * networks[1].ctc.weight
    torch.testing.assert_close(load_network(tmp_path / "both")[0].ctc.weight, expected, atol=1e-3, rtol=1e-3)


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


def test_an_interrupted_prepare_leaves_no_old_table_over_new_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))
    import prepare

    folder, out = tmp_path / "mine", tmp_path / "out"
    folder.mkdir()
    soundfile.write(folder / "one.wav", 0.1 * np.sin(np.arange(8_000) / 5), 16_000)
    (folder / "one.txt").write_text("This is won", encoding="utf-8")
    prepare.cli(out=out, folder=[folder], jobs=1)
    (out / "alignments.npz").write_bytes(b"of the old text")

    (folder / "one.txt").write_text("This is one", encoding="utf-8")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prepare, "track", lambda *_, **__: interrupted())
        prepare.cli(out=out, folder=[folder], jobs=1)
    with pytest.raises(ValueError, match=r"run recipes/prepare\.py"):
        Prepared.open(out)
    assert not (out / "alignments.npz").exists()

    prepare.cli(out=out, folder=[folder], jobs=1)
    assert [u.text for u in Prepared.open(out).utterances] == ["This is one"]
    assert sorted(file.name for file in out.iterdir()) == [
        "features-0.90.raw", "features-1.00.raw", "features-1.10.raw", "utterances.tsv",
    ]  # fmt: skip


def interrupted() -> NoReturn:
    raise KeyboardInterrupt


def test_prepare_takes_splits_of_corpora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))
    import prepare

    write_chapter(tmp_path / "LibriSpeech/dev-clean", 84, 1, ["ONE", "TWO"])
    write_chapter(tmp_path / "librispeech_finetuning/1h/0/other", 40, 1, ["THREE"])
    prepare.cli(
        out=tmp_path / "out", librispeech=tmp_path, split=["dev-clean", "10min"], development=True, jobs=1
    )
    found = Prepared.open(tmp_path / "out")
    assert [(u.set, u.speaker, u.text) for u in found.utterances] == [
        ("librispeech/dev-clean", "84", "ONE"), ("librispeech/dev-clean", "84", "TWO"),
        ("librispeech/10min", "40", "THREE"),
    ]  # fmt: skip
    assert list(found.features) == ["1.00"]


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


def test_waveforms_get_their_noise_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))
    import prepare

    with pytest.raises(SystemExit):
        prepare.cli(out=tmp_path, waveforms=True, noise=tmp_path)
    assert "--waveforms goes without --noise" in capsys.readouterr().err

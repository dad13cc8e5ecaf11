"""Corpora in their distributed form become utterances: on small trees made here."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.corpora import read_common_voice, read_folder, read_librispeech


def write_audio(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 1_600), 16_000)


def write_chapter(folder: Path, speaker: int, chapter: int, texts: list[str]) -> None:
    names = [f"{speaker}-{chapter}-{i:04}" for i in range(len(texts))]
    place = folder / str(speaker) / str(chapter)
    for name in names:
        write_audio(place / f"{name}.flac")
    lines = [f"{name} {text}\n" for name, text in zip(names, texts, strict=True)]
    (place / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines), encoding="utf-8")


@pytest.fixture
def librispeech(tmp_path: Path) -> Path:
    root = tmp_path / "LibriSpeech"
    write_chapter(root / "train-clean-100", 19, 198, ["NORTHANGER ABBEY", "THIS LITTLE WORK"])
    write_chapter(root / "train-clean-100", 26, 495, ["A THIRD"])
    write_chapter(root / "dev-other", 84, 1, ["UNHEARD"])
    for part in range(2):
        write_chapter(tmp_path / f"librispeech_finetuning/1h/{part}/clean", 30 + part, 1, [f"PART {part}"])
        write_chapter(tmp_path / f"librispeech_finetuning/1h/{part}/other", 40 + part, 1, [f"NOISY {part}"])
    write_chapter(tmp_path / "librispeech_finetuning/9h/clean", 50, 1, ["NINE HOURS"])
    return tmp_path


def test_librispeech(librispeech: Path) -> None:
    found = list(read_librispeech(librispeech, ["train-clean-100", "dev-other"]))
    assert [u.text for u in found] == ["NORTHANGER ABBEY", "THIS LITTLE WORK", "A THIRD", "UNHEARD"]
    assert [u.speaker for u in found] == ["19", "19", "26", "84"]
    assert all(u.path.is_file() for u in found)
    assert found[1].path.name == "19-198-0001.flac"
    assert list(read_librispeech(librispeech / "LibriSpeech", ["dev-other"])) == found[3:]
    assert list(read_librispeech(librispeech, ["100h"])) == found[:3]


@pytest.mark.parametrize(
    ("split", "texts"),
    [
        ("10min", {"PART 0", "NOISY 0"}),
        ("1h", {"PART 0", "NOISY 0", "PART 1", "NOISY 1"}),
        ("10h", {"PART 0", "NOISY 0", "PART 1", "NOISY 1", "NINE HOURS"}),
    ],
)
def test_few_labels(librispeech: Path, split: str, texts: set[str]) -> None:
    found = list(read_librispeech(librispeech, [split]))
    assert {u.text for u in found} == texts and len(found) == len(texts)
    assert all(u.path.is_file() for u in found)


def test_what_is_not_there_is_fetched_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def librispeech(root: Path, url: str, folder_in_archive: str, download: bool) -> None:
        asked.append(url)
        assert download
        write_chapter(root / folder_in_archive / url, 1, 2, ["FETCHED"])

    def limited(root: Path, subset: str, download: bool) -> None:
        asked.append(subset)
        assert download
        write_chapter(root / "librispeech_finetuning/1h/0/clean", 1, 2, ["LIMITED"])

    monkeypatch.setattr("torchaudio.datasets.LIBRISPEECH", librispeech)
    monkeypatch.setattr("torchaudio.datasets.LibriLightLimited", limited)
    with pytest.raises(
        ValueError, match=r"dev-clean: no such folder: unpack the corpus there, or --download"
    ):
        list(read_librispeech(tmp_path, ["dev-clean"]))
    for _ in range(2):
        found = list(read_librispeech(tmp_path / "new", ["dev-clean", "10min"], download=True))
        assert [u.text for u in found] == ["FETCHED", "LIMITED"]
    assert asked == ["dev-clean", "10min"]  # once


def test_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no split 'dev'; there are train-clean-100, .* 10min"):
        list(read_librispeech(tmp_path, ["dev"]))


@pytest.fixture
def common_voice(tmp_path: Path) -> Path:
    def table(split: str, rows: list[tuple[str, str, str]]) -> None:
        lines = ["client_id\tpath\tsentence_id\tsentence\tup_votes"]
        lines += [f"{speaker}\t{path}\tx1\t{sentence}\t2" for speaker, path, sentence in rows]
        (tmp_path / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    train = [("anna", "c1.mp3", 'He said: "No!"'), ("ben", "c2", "It's “fine”.")]
    dev = [("cleo", "c3.mp3", "Unheard.")]
    table("train", train)
    table("dev", dev)
    table("validated", [*train, *dev, ("cleo", "c4.mp3", "Hers too."), ("dan", "c5.mp3", "Mine.")])
    return tmp_path


def test_common_voice(common_voice: Path) -> None:
    found = list(read_common_voice(common_voice, ["train"]))
    assert [(u.speaker, u.text) for u in found] == [("anna", 'He said: "No!"'), ("ben", "It's “fine”.")]
    assert [u.path for u in found] == [common_voice / "clips" / name for name in ("c1.mp3", "c2.mp3")]


def test_speakers_held_out_by_common_voice_stay_unheard(common_voice: Path) -> None:
    assert [u.speaker for u in read_common_voice(common_voice, ["validated"])] == ["anna", "ben", "dan"]
    assert [u.speaker for u in read_common_voice(common_voice, ["dev"])] == ["cleo"]


def test_errors_of_common_voice(common_voice: Path) -> None:
    with pytest.raises(ValueError, match=r"other\.tsv: no such table: is this the folder"):
        list(read_common_voice(common_voice, ["other"]))
    (common_voice / "other.tsv").write_text("path\ttext\nc.mp3\ta\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.tsv:1: no column client_id, sentence"):
        list(read_common_voice(common_voice, ["other"]))


def test_own_folder(tmp_path: Path) -> None:
    for name in ("a.wav", "mia/b.flac", "mia/c.wav", "noah/d.WAV", "noah/silent.wav"):
        write_audio(tmp_path / name)
    (tmp_path / "a.txt").write_text("one\ntwo \n", encoding="utf-8")
    (tmp_path / "mia" / "b.lab").write_text("\ufeffThree.", encoding="utf-8")
    (tmp_path / "mia" / "mia.trans.txt").write_text("c four five\nb six\n\n", encoding="utf-8")
    (tmp_path / "noah" / "noah.trans.txt").write_text("d\tseven\n", encoding="utf-8")
    (tmp_path / "notes.md").write_text("no audio", encoding="utf-8")
    found = [(u.path.relative_to(tmp_path).as_posix(), u.speaker, u.text) for u in read_folder(tmp_path)]
    assert found == [
        ("a.wav", "", "one two"),
        ("mia/b.flac", "mia", "Three."),
        ("mia/c.wav", "mia", "four five"),
        ("noah/d.WAV", "noah", "seven"),
    ]


def test_errors_of_own_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        list(read_folder(tmp_path / "elsewhere"))
    write_audio(tmp_path / "a.wav")
    with pytest.raises(ValueError, match=r"no recording with its text beside it \(NAME\.wav and NAME\.txt\)"):
        list(read_folder(tmp_path))
    (tmp_path / "a.txt").write_bytes("grün".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.txt: not UTF-8 text"):
        list(read_folder(tmp_path))

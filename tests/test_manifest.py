from __future__ import annotations

from pathlib import Path

import pytest

from asr.manifest import Utterance, read_manifest


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_bytes(content.encode())
    return path


def test_tsv(tmp_path: Path):
    content = 'path\tduration\tspeaker\ttext\r\na.opus\t1.5\tann\tSO "HE SAID\u2028\r\n\r\n/b.wav\t\t\t\r\n'
    assert read_manifest(write(tmp_path, "m.tsv", content)) == [
        Utterance(path=tmp_path / "a.opus", text='SO "HE SAID\u2028', speaker="ann", duration=1.5),
        Utterance(path=Path("/b.wav")),
    ]


def test_jsonl(tmp_path: Path):
    content = '\ufeff{"audio": "a.wav", "text": "héllo", "speaker": 7}\n\n{"path": "b.wav", "duration": 2}\n'
    assert read_manifest(write(tmp_path, "m.jsonl", content)) == [
        Utterance(path=tmp_path / "a.wav", text="héllo", speaker="7"),
        Utterance(path=tmp_path / "b.wav", duration=2.0),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.tsv", "a.wav\thello\n", "m.tsv:1: .*header that names the column 'path'"),
        ("m.tsv", "", "m.tsv:1: .*header"),
        ("m.tsv", "path\ttext\na\tb\n\nc\td\te\n", "m.tsv:4: 3 columns where the header has 2"),
        ("m.tsv", "path\ttext\n\thello\n", "m.tsv:2: no path"),
        ("m.tsv", "path\tduration\na\tlong\n", "m.tsv:2: duration must be seconds, not 'long'"),
        ("m.tsv", "path\tduration\na\t-1\n", "m.tsv:2: duration"),
        ("m.tsv", "path\ttext\n\n", "no recordings"),
        ("m.jsonl", '{"path": "a"}\n{"path": \n', "m.jsonl:2: not JSON"),
        ("m.jsonl", '["a.wav"]\n', "m.jsonl:1: not a JSON object"),
        ("m.jsonl", '{"path": "a", "text": 5}\n', "m.jsonl:1: text must be a string"),
        ("m.jsonl", '{"path": "a", "duration": "nan"}\n', "m.jsonl:1: duration"),
    ],
)
def test_bad_manifests_name_file_and_line(tmp_path: Path, name: str, content: str, message: str):
    with pytest.raises(ValueError, match=message):
        read_manifest(write(tmp_path, name, content))


def test_what_is_no_manifest(tmp_path: Path):
    with pytest.raises(ValueError, match="no such manifest"):
        read_manifest(tmp_path / "none.tsv")
    with pytest.raises(ValueError, match="is a folder"):
        read_manifest(tmp_path)
    (tmp_path / "blob").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8 text"):
        read_manifest(tmp_path / "blob")


def test_the_manifests_that_come_along_name_recordings_that_exist(examples: Path):
    for name in ("examples.tsv", "zero_shot.tsv"):
        assert all(u.path.is_file() and u.text and u.duration > 0 for u in read_manifest(examples / name))

"""Transcripts are kept where the sounds agree with them, and only there."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asr.manifest import read_manifest

RECIPE = Path(__file__).parents[1] / "recipes" / "pseudo_label.py"
SAID = "THE NURSE GAVE HIM DRISCONEL AFTER DINNER"
NOT_SAID = "A COLD WIND BLEW OVER THE EMPTY HARBOUR"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, RECIPE, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.slow
def test_keeps_what_was_said_and_nothing_else(examples: Path, tmp_path: Path) -> None:
    right, wrong, broken = tmp_path / "right.opus", tmp_path / "wrong.opus", tmp_path / "broken.opus"
    shutil.copy(examples / "zero_shot" / "drisconel-1.opus", right)
    shutil.copy(examples / "zero_shot" / "drisconel-2.opus", wrong)
    broken.write_bytes(b"no audio")
    transcripts = tmp_path / "other.tsv"
    rows = [f"{right.name}\t{SAID}", f"{wrong.name}\t{NOT_SAID}", f"{broken.name}\t{SAID}"]
    transcripts.write_text("\n".join(["path\ttext", *rows]) + "\n", encoding="utf-8")
    out = tmp_path / "pseudo.tsv"

    done = run("--transcripts", transcripts, "--out", out, "--max-rate", 0.4)
    assert done.returncode == 0, done.stderr
    assert "skipped" in done.stderr and "broken.opus" in done.stderr
    kept = read_manifest(out)
    assert [(u.path.name, u.text) for u in kept] == [(right.name, SAID.lower())]
    assert 2 < kept[0].duration < 5

    forbidden = tmp_path / "dev.tsv"
    forbidden.write_text(f"path\ttext\nx.wav\t{SAID}\n", encoding="utf-8")
    done = run("--transcripts", transcripts, "--out", out, "--max-rate", 0.4, "--without", forbidden)
    assert done.returncode == 0, done.stderr
    assert len(out.read_text(encoding="utf-8").splitlines()) == 1  # the header alone

    done = run(right, "--out", out, "--max-rate", 1.0)
    assert done.returncode == 0, done.stderr
    assert "nurse" in read_manifest(out)[0].text  # the recogniser's own words


def test_without_recordings_it_says_what_to_do(tmp_path: Path) -> None:
    done = run("--out", tmp_path / "pseudo.tsv", tmp_path / "missing.wav")
    assert done.returncode == 2 and "missing.wav: no such file" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1

"""Transcripts are kept where the sounds agree with them, and only there."""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference.edit_distance import edit_distance

from asr.manifest import Utterance, read_manifest

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
    forbidden.write_text(f"path\ttext\nx.wav\t{SAID.replace('DINNER', 'BREAKFAST')}\n", encoding="utf-8")
    done = run("--transcripts", transcripts, "--out", out, "--max-rate", 0.4, "--without", forbidden)
    assert done.returncode == 0, done.stderr
    assert len(out.read_text(encoding="utf-8").splitlines()) == 1  # the header alone
    assert "0 of 3 utterances" in done.stdout and "1 left out by --without" in done.stdout

    done = run(right, "--out", out, "--max-rate", 1.0)
    assert done.returncode == 0, done.stderr
    assert "nurse" in read_manifest(out)[0].text  # the recogniser's own words


def test_without_recordings_it_says_what_to_do(tmp_path: Path) -> None:
    done = run("--out", tmp_path / "pseudo.tsv", tmp_path / "missing.wav")
    assert done.returncode == 2 and "missing.wav: no such file" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(RECIPE.parent))
    import pseudo_label

    return pseudo_label


def sentences(recipe: Any, *texts: str) -> Any:
    return recipe.Forbidden.of([Utterance(path=Path("x.wav"), text=text) for text in texts])


@pytest.mark.parametrize(
    ("text", "alike"),
    [
        ("a cold wind blew over the empty harbour", True),
        ("a cold wind blue over the empty harbour", True),  # one of eight misheard
        ("cold wind blue over an empty harbour", True),  # three: one fell away
        ("a cold wind blew over many other ships", True),  # three
        ("a cold wind blew past many other ships", False),  # four
        ("harbour empty the over blew wind cold a", False),  # the words alone are no sentence
        ("a cold wind blew over the empty harbour and nobody was there to see", False),  # six too many
        ("go home", True),
        ("go on", False),  # of a short sentence all words must be the same
        ("", False),
    ],
)
def test_misheard_sentences_are_alike(recipe: Any, text: str, alike: bool) -> None:
    assert sentences(recipe, NOT_SAID, "Go home!", "", NOT_SAID).has_text(text) is alike


def test_alike_is_what_the_distance_to_each_sentence_says(recipe: Any) -> None:
    rng = np.random.default_rng(0)

    def text(longest: int) -> list[str]:
        return [str(word) for word in rng.choice(list("abc"), rng.integers(0, longest))]

    seen = []
    for _ in range(600):
        forbidden, said = [text(6) for _ in range(2)], text(6)
        alike = any(
            edit_distance(words, said) <= (0.4 * len(words) if len(words) >= 3 else 0)
            for words in forbidden
            if words
        )
        assert sentences(recipe, *map(" ".join, forbidden)).has_text(" ".join(said)) is alike
        seen.append(alike)
    assert 40 < sum(seen) < 500


def test_recordings_speakers_and_sentences_are_left_out(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The listeners are told what they hear: who is listened to, and what is kept, is the recipe's."""
    manifest = "path\tspeaker\ttext\n{}\n".format
    rows = [
        f"same.wav\t\t{NOT_SAID}", f"link.wav\t\t{NOT_SAID}", f"mia.wav\tmia\t{NOT_SAID}",
        f"text.wav\tben\t{SAID.replace('NURSE', 'NURSES')}", f"other.wav\tben\t{NOT_SAID}",
        f"unnamed.wav\t\t{NOT_SAID}",
    ]  # fmt: skip
    (tmp_path / "link.wav").symlink_to(tmp_path / "same.wav")
    (tmp_path / "all.tsv").write_text(manifest("\n".join(rows)), encoding="utf-8")
    (tmp_path / "dev").mkdir()
    development = ["../same.wav\t\tONE TWO THREE", "x.wav\tmia\tFOUR FIVE SIX", f"y.wav\t\t{SAID}"]
    (tmp_path / "dev" / "dev.tsv").write_text(manifest("\n".join(development)), encoding="utf-8")
    listened: list[str] = []

    def label(recognizer: object, utterances: Sequence[Utterance]) -> Iterator[Any]:
        for u in utterances:
            listened.append(u.path.name)
            yield recipe.Labelled(utterance=replace(u, text=u.text.lower(), duration=2.0), rate=0.0)

    monkeypatch.setattr(recipe, "label", label)
    monkeypatch.setattr(recipe.Recognizer, "load", lambda **_: None)
    out = tmp_path / "pseudo.tsv"
    recipe.cli(out=out, transcripts=tmp_path / "all.tsv", without=[tmp_path / "dev" / "dev.tsv"])
    assert listened == ["text.wav", "other.wav", "unnamed.wav"]
    assert [u.path.name for u in read_manifest(out)] == ["other.wav", "unnamed.wav"]
    assert "2 of 6 utterances" in capsys.readouterr().out

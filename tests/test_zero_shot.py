"""Names that are in no text, lexicon or model: unheard before they are written down, heard afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr import paths
from asr.evaluate import Evaluation, evaluate
from asr.manifest import read_manifest
from asr.metrics import Errors
from asr.transcribe import Recognizer

NAMES = frozenset((Path(__file__).parent / "examples" / "zero_shot_words.txt").read_text("utf-8").split())


def other_words(result: Evaluation) -> Errors:
    """Word errors but for the names: pairs with a name in the reference do not count."""
    pairs = [pair for scored in result.scored for pair in scored.pairs if pair[0] not in NAMES]
    return Errors(errors=sum(a != b for a, b in pairs), total=sum(a != "" for a, _ in pairs))


@pytest.fixture(scope="module")
def before(recognizer: Recognizer, examples: Path) -> Evaluation:
    return evaluate(recognizer, read_manifest(examples / "zero_shot.tsv"), set(NAMES))


def test_names_are_heard_once_they_are_in_the_users_file(
    before: Evaluation, examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mine = tmp_path / "user.txt"
    monkeypatch.setattr(paths, "user_lexicon", lambda: mine)
    mine.write_text("# names\n" + "\n".join(sorted(NAMES)) + "\n", encoding="utf-8")
    utterances = read_manifest(examples / "zero_shot.tsv")
    after = evaluate(Recognizer.load(device="cpu"), utterances, set(NAMES))

    assert before.recall is not None and after.recall is not None
    assert (before.recall.said, before.recall.found, before.recall.false) == (20, 0, 0)
    assert after.recall.found >= 16
    assert after.recall.false == 0
    assert other_words(after).errors <= other_words(before).errors

    # An edit of the file counts at the next load: nothing is built.
    found = [name for name, (_, heard, _) in after.recall.by_word.items() if heard]
    mine.write_text("\n".join(sorted(NAMES - {found[0]})) + "\n", encoding="utf-8")
    edited = Recognizer.load(device="cpu")
    chosen = [u for u in utterances if found[0] in u.text.lower() or found[1] in u.text.lower()]
    heard = " ".join(t.text for t in edited.transcribe([u.path for u in chosen]))
    assert found[0] not in heard and found[1] in heard

"""The zero-shot benchmark counts what it says, and its words are what it says they are."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

RECIPES = Path(__file__).parents[1] / "recipes"
sys.path.insert(0, str(RECIPES))
import train_lm  # noqa: E402
import zero_shot  # noqa: E402
import zero_shot_edit  # noqa: E402
import zero_shot_spelled as spelled  # noqa: E402
from zero_shot import Condition, Row, read_rows, table_row  # noqa: E402
from zero_shot_data import (  # noqa: E402
    Fold,
    Speech,
    invent,
    key_of,
    make_fold,
    read_manifests,
    read_names,
    with_likes,
    words_of,
)
from zero_shot_engines import every, load_phonebook  # noqa: E402
from zero_shot_task import Counts, choose, count  # noqa: E402

from asr.decoder import Decoder  # noqa: E402
from asr.lexicon import Entry, Lexicon  # noqa: E402
from asr.metrics import Errors  # noqa: E402
from asr.own_words import OwnWords  # noqa: E402
from asr.phones import PhoneSet  # noqa: E402
from asr.training.lm_text import Exclusion, training_sentences  # noqa: E402

TRAINED = [["a", "known", "word"]]
LEXICON = {
    "a": "ə", "known": "n oʊ n z", "word": "w ɜː d z", "tree": "t ɹ iː", "maple": "m eɪ p ə l",
    "aspen": "æ s p ə n", "willow": "w ɪ l oʊ", "alder": "ɔː l d ɚ", "unsaid": "ʌ n s ɛ d",
}  # fmt: skip


def entries(lexicon: dict[str, str]) -> list[Entry]:
    return [Entry(word=word, phones=tuple(phones.split())) for word, phones in lexicon.items()]


def test_words_are_said_but_never_in_training_and_long_enough():
    said = [["a", "maple", "tree"], ["known", "aspen", "willow", "alder", "elsewhere"]]
    folds = choose(said, TRAINED, entries(LEXICON), seed=0)
    # "tree" has three phones, "elsewhere" is in no lexicon, "unsaid" is not said.
    assert sorted(folds[0] + folds[1]) == ["alder", "aspen", "maple", "willow"]
    # Pairs of one length are parted, the two longer ones and the two shorter ones.
    assert [len({"maple", "aspen"} & set(fold)) for fold in folds] == [1, 1]
    assert folds == choose(said, TRAINED, entries(LEXICON), seed=0)
    assert any(folds != choose(said, TRAINED, entries(LEXICON), seed=seed) for seed in range(1, 9))


def test_counts_of_a_small_case():
    references = [["the", "maple", "fell"], ["an", "aspen", "and", "a", "maple"], ["no", "tree", "here"]]
    heard = [["the", "maple", "fell"], ["an", "ass", "pen", "and", "a", "may"], ["no", "zorbin", "maple"]]
    found = count(references, heard, frozenset(["maple"]), frozenset(["aspen"]), ["zorbin", "quill"])
    assert (found.said, found.found) == (2, 1)
    assert (found.known_said, found.known_found) == (1, 0)
    assert found.false == 2  # "zorbin", and "maple" where it was not said
    assert found.others == Errors(errors=4, total=9)  # aspen -> ass, pen inserted, tree, here
    assert found.untouched == Errors(errors=2, total=3)  # the last utterance alone
    assert (found.recall, found.known_recall, found.precision) == (0.5, 0.0, 1 / 3)


def test_counts_add_up():
    one = Counts(said=1, found=1, false=2, others=Errors(errors=1, total=5))
    both = one + Counts(said=3, known_said=4, others=Errors(errors=2, total=5))
    assert both == Counts(said=4, found=1, known_said=4, false=2, others=Errors(errors=3, total=10))
    assert Counts().recall == Counts().precision == 0.0


def test_invented_names_are_no_words():
    words = [*LEXICON, "cathedral", "banana"]
    names = invent(words, {*words}, 20, seed=1)
    assert len(set(names)) == len(names) == 20
    assert not set(words) & set(names)
    assert all(5 <= len(name) <= 12 for name in names)
    assert names == invent(words, {*words}, 20, seed=1)
    assert names[0] not in invent(words, {*words, names[0]}, 20, seed=1)


def test_names_of_a_file_are_unknown_ones(tmp_path: Path):
    file = tmp_path / "names.txt"
    file.write_text("Maple\nZORBIN\nquill\nquill\n\n", encoding="utf-8")
    assert read_names(file, {"maple"}, 2) == ["zorbin", "quill"]
    with pytest.raises(ValueError, match=r"names\.txt: 2 names that are not known, 3 are needed"):
        read_names(file, {"maple"}, 3)


def test_the_language_model_never_meets_the_held_out_words(tmp_path: Path):
    (tmp_path / "text.txt").write_text(
        "A maple grew\nmaples grew\nthe Aspen, too\nnothing\n", encoding="utf-8"
    )
    (tmp_path / "held_out.txt").write_text("maple\naspen\n", encoding="utf-8")
    config = train_lm.Config(texts=(), out=tmp_path, without=tmp_path / "held_out.txt", held_out_every=10**9)
    unwanted = train_lm.unwanted_words(config)
    read = training_sentences(tmp_path / "text.txt", config.held_out_every, Exclusion(), unwanted)
    assert list(read) == ["maples grew", "nothing"]


def test_no_data_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="none of the sets is there"):
        read_manifests(tmp_path, ["commonvoice/dev.tsv"])
    (tmp_path / "dev.tsv").write_text("path\ttext\na.wav\tDr. O'Neil\n", encoding="utf-8")
    assert words_of(read_manifests(tmp_path, ["dev.tsv", "not there"])) == [["doctor", "o'neil"]]


@pytest.fixture
def fold(tmp_path: Path, phones: PhoneSet) -> Fold:
    lm = tmp_path / "fold0" / "lm.arpa"
    lm.parent.mkdir()
    # As if made before, for the same words.
    texts = ["novels.txt.xz", "modern.txt.xz"]
    (lm.parent / "lm.words.txt").write_text(key_of(["maple", "willow"], texts))
    words = ["<unk>", "<s>", "</s>", *(word for word in LEXICON if word not in ("maple", "willow"))]
    unigrams = "\n".join(f"-1.0\t{word}\t0" for word in words)
    lm.write_text(
        f"\\data\\\nngram 1={len(words)}\nngram 2=1\n\n\\1-grams:\n{unigrams}\n\n"
        "\\2-grams:\n-0.5\t<s> a\n\n\\end\\\n",
        encoding="utf-8",
    )
    halves = [["maple", "willow"], ["aspen", "alder"]]
    return make_fold(0, halves, entries(LEXICON), phones, tmp_path / "no data", tmp_path)


def test_the_lexicon_of_a_fold_lacks_its_words(fold: Fold, phones: PhoneSet):
    left = Lexicon.read([fold.lexicon], phones)
    assert left.words() == LEXICON.keys() - {"maple", "willow"}
    assert fold.known == {"aspen", "alder"}
    assert {entry.word: " ".join(entry.phones) for entry in fold.given} == {
        word: LEXICON[word] for word in ("maple", "willow")
    }
    assert {entry.word for entry in fold.guessed} == {"maple", "willow"}


def test_what_is_added_under_each_condition(fold: Fold):
    names = tuple(entries({"zorbin": "z ɔː b ɪ n", "quill": "k w ɪ l"}))
    task = zero_shot.Task(speech=None, phones=None, folds=(fold,), distractors=names, frequent=tuple(LEXICON))
    assert Condition(words="held out").added(fold, task) == ()
    assert Condition(words="given", distractors=1).added(fold, task) == (*fold.given, names[0])
    assert Condition(words="guessed", distractors=2).added(fold, task) == (*fold.guessed, *names)


def test_a_word_is_like_the_most_frequent_of_its_ending(fold: Fold, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("zero_shot_data.TOO_FREQUENT", 1)
    frequent = ("staple", "willow", "people", "apple", "simple", "hollow", "low")
    added = with_likes(fold, tuple(entries({"zorbin": "z ɔː b ɪ n"})), frequent)
    # "staple" is too frequent, "willow" itself held out.
    assert {e.word: e.like for e in added} == {"maple": "people", "willow": "hollow", "zorbin": "smith"}


def said_clearly(sentence: str, sounds: dict[str, str], phones: PhoneSet) -> np.ndarray:
    tokens = [t for word in sentence.split() for t in phones.encode(tuple(sounds[word].split()))]
    path = np.array([t for token in tokens for t in (token, 0)])
    return np.where(np.arange(len(phones)) == path[:, None], 0.0, -12.0).astype(np.float32)


def clear_speech(sentences: list[str], phones: PhoneSet) -> Speech:
    rows = [said_clearly(sentence, LEXICON, phones) for sentence in sentences]
    lengths = np.array([len(row) for row in rows])
    log_probs = np.zeros((len(rows), lengths.max(), len(phones)), np.float32)
    for padded, row in zip(log_probs, rows, strict=True):
        padded[: len(row)] = row
    references = [sentence.split() for sentence in sentences]
    return Speech(log_probs=log_probs, lengths=lengths, references=references, hours=1.0)


def test_held_out_words_are_heard_once_they_are_added(fold: Fold, phones: PhoneSet):
    speech = clear_speech(["a maple", "aspen willow", "alder"], phones)
    hear = load_phonebook(fold, speech, phones)
    before = count(speech.references, hear(()), fold.held_out, fold.known, ())
    assert (before.said, before.found, before.known_said, before.known_found) == (2, 0, 2, 2)
    after = count(speech.references, hear(fold.given), fold.held_out, fold.known, ())
    assert (after.found, after.known_found, after.false) == (2, 2, 0)
    assert hear(()) != hear(fold.given)  # and they do not stay


def test_each_so_many_th_utterance(phones: PhoneSet):
    speech = clear_speech(["a maple", "aspen willow", "alder"], phones)
    half = every(speech, 2)
    assert half.references == [["a", "maple"], ["alder"]]
    assert half.hours == pytest.approx(half.lengths.sum() / speech.lengths.sum())


def test_spelled_words_are_read_back(phones: PhoneSet):
    lexicon = {"aspen": "æ s p ə n", "asp": "æ s p", "aspenne": "æ s p ə n"}
    spelling = spelled.spell([*entries(lexicon), *entries({"asp": "p p p"})], phones)
    assert [len(word) for word in spelling.values()] == [5, 3, 5]
    assert spelling["aspen"] == spelling["aspenne"] and spelling["aspen"].startswith(spelling["asp"])
    assert spelled.read_back(spelling, [spelling["aspenne"], spelling["asp"], "?"]) == ["aspen", "asp", "?"]
    assert list(spelled.rewritten(["asp aspen oak"], spelling)) == [
        f"{spelling['asp']} {spelling['aspen']} x\n"
    ]
    # Every phone twice, and labels to match.
    log_probs = np.arange(2 * len(phones)).reshape(2, -1)
    twice, names = spelled.doubled(log_probs), spelled.labels(phones)
    assert twice.shape == (2, len(names))
    letter = spelled.letters(phones)["s"]
    begins, goes_on = names.index(f"▁{letter}"), names.index(letter)
    assert twice[1, begins] == twice[1, goes_on] == log_probs[1, phones.symbols.index("s")]


def test_more_phones_than_letters_are_refused():
    many = PhoneSet(("<blk>", *(f"p{i}" for i in range(99))))
    with pytest.raises(ValueError, match="phones can be spelled, not 99"):
        spelled.letters(many)


def row(**changes: object) -> Row:
    counts = Counts(said=10, found=8, known_said=4, known_found=3, false=2, others=Errors(errors=1, total=8))
    values: dict[str, object] = {
        "engine": "phonebook",
        "condition": Condition(words="guessed", distractors=100),
        "step": 1,
        "folds": 2,
        "counts": counts,
        "hours": 2.0,
        "process_s": 72.0,
        "num_held_out": 100.0,
    }
    return Row(**values | changes)


def test_a_row_says_what_was_counted(tmp_path: Path):
    cells = [cell.strip() for cell in table_row(row()).strip("| ").split("|")]
    assert cells[2:] == ["100", "80.0", "75.0", "80.0", "1.0", "0.50", "12.50", "0.00", "100"]
    # False alarms by added words: none were added.
    assert "|  | 12.50 |" in table_row(row(condition=Condition(words="held out")))
    file = tmp_path / "rows.json"
    assert read_rows(file) == []
    file.write_text(json.dumps([zero_shot.dataclasses.asdict(row())]), encoding="utf-8")
    assert read_rows(file) == [row()]


def test_a_plot_is_drawn(tmp_path: Path):
    pytest.importorskip("matplotlib", reason="pip install 'phonebook-asr[train]'")
    rows = [row(condition=Condition(words="guessed", distractors=n)) for n in (0, 100, 1000)]
    zero_shot.plot([row(condition=Condition(words="held out")), *rows], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_pyctcdecode_hears_a_hot_word(fold: Fold, phones: PhoneSet, monkeypatch: pytest.MonkeyPatch):
    python = os.environ.get("PYCTCDECODE_PYTHON")
    if not python:
        pytest.skip("set PYCTCDECODE_PYTHON to a Python with pyctcdecode and kenlm")
    from zero_shot_engines import load_pyctcdecode

    folder = fold.lm.parent / "spelled"
    folder.mkdir()
    spelling = spelled.spell(Lexicon.read([fold.lexicon], phones).entries, phones)
    arpa = fold.lm.read_text(encoding="utf-8")
    for word, letters in spelling.items():
        arpa = arpa.replace(f"\t{word}\t", f"\t{letters}\t")
    arpa = arpa.replace("<s> a\n", f"<s> {spelling['a']}\n")
    (folder / "lm.arpa").write_text(arpa, encoding="utf-8")
    speech = clear_speech(["a maple", "aspen willow", "alder"], phones)
    hear = load_pyctcdecode(fold, speech, phones, fold.lm, Path(python))
    assert hear(())[2] == ["alder"]
    after = count(speech.references, hear(fold.given), fold.held_out, fold.known, ())
    assert after.found == 2


def test_an_edit_guesses_the_new_word_alone(fold: Fold, phones: PhoneSet, tmp_path: Path):
    asked: list[str] = []

    def g2p(words):
        asked.extend(words)
        return [[("m", "eɪ")] for _ in words]

    file = tmp_path / "mine.txt"
    file.write_text("zorbin\n", encoding="utf-8")
    decoder = Decoder(Lexicon(tuple(entries(LEXICON))), None, phones)
    own = OwnWords(decoder, [file], Lexicon(()), phones, g2p)
    file.write_text("zorbin\nquill\n", encoding="utf-8")
    own.refresh()
    assert own.lexicon.words() == {"zorbin", "quill"}
    assert asked == ["zorbin", "quill"]


@pytest.mark.slow
def test_times_of_an_edit(tmp_path: Path):
    quiet, edited = zero_shot_edit.measure_edit(["zorbin", "quilmer"], tmp_path / "names.txt")
    # Several cores may work at a time; the two clocks are read one after the other.
    cores = len(os.sched_getaffinity(0))
    for wall_s, processor_s in (quiet, edited):
        assert 0 < processor_s <= cores * wall_s + 1e-3
    # A second without an edit would be a new start: this is one line.
    assert edited[1] - quiet[1] < 0.2

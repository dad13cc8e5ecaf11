"""Sentences of articles are those that can be said as they are written."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from asr.training.word_frequencies import words_among

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture(autouse=True)
def _recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))


def sentences(text: str) -> list[str]:
    from sentences import sentences_of

    return list(sentences_of(text))


def test_whole_sentences_without_their_apparatus() -> None:
    article = "\n\n".join(
        [
            "_THE PUFFIN_ (_Fratercula_; plural PUFFINS) is a small bird.[1][note 2] It nests in Saint-Malo "
            "(France (west)).",
            "Puffin_on_a_rock.jpg The parents – both of them – dig burrows! “Do they swim?” asked Dr. J. R. "
            "Grey of St. Ives Ltd. last year. Yes.",
        ]
    )
    assert sentences(article) == [
        "the puffin is a small bird",
        "it nests in saint malo",
        "the parents both of them dig burrows",
        "do they swim asked doctor j r grey of st ives ltd last year",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "The puffin was seen in 1999 and again later.",  # who knows how figures are said
        "King Henry VIII had no puffins at all.",
        "Puffins are called λούνδα in the old books.",
        "Two words.",
        " ".join(["Word"] + ["word"] * 45) + ".",
        "References and further reading",
        "of the puffins and their nests.",
        "-   A list of puffins and their nests.",
        "  Island    Puffins    Nests of them.",
        "",
    ],
)
def test_what_is_no_sentence(line: str) -> None:
    assert sentences(line) == []
    assert sentences(f"Here is a sentence.\n{line}\nAnd one more.") == ["here is a sentence", "and one more"]


def test_accents_are_left_away() -> None:
    assert sentences("Ryō Satō met Cenk Özyılmaz no more.") == []  # a letter without dot is no English one
    assert sentences("Ryō Satō met Zoë Müller once more.") == ["ryo sato met zoe muller once more"]


def test_a_folder_becomes_a_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sentences import main

    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "b.md").write_text("It is a bird. It is a very small bird.\n", encoding="utf-8")
    (tmp_path / "in" / "deep" / "a.txt").write_text("It is a bird. Is it one?\n", encoding="utf-8")
    (tmp_path / "in" / "c.png").write_bytes(b"It is no text at all.")
    out = tmp_path / "text" / "birds.txt.xz"
    main(tmp_path / "in", out)
    with lzma.open(out, "rt", encoding="utf-8") as file:
        assert file.read().splitlines() == ["it is a bird", "it is a very small bird", "is it one"]
    assert "3 sentences, 13 words of 2 articles" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: no sentences in 0 files that end in \.md or \.txt"):
        main(tmp_path / "empty", tmp_path / "text" / "none.txt")
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_texts_of_a_folder(tmp_path: Path) -> None:
    from asr.training.lm_text import texts_of

    (tmp_path / "text").mkdir()
    for name in ("birds.txt.xz", "modern.txt.xz", "novels.txt.xz", "notes.txt"):
        (tmp_path / "text" / name).touch()
    assert [path.name for path in texts_of(tmp_path)] == ["novels.txt.xz", "modern.txt.xz", "birds.txt.xz"]


def test_words_of_other_texts_must_be_frequent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import make_lexicon
    from make_lexicon import Config, choose_words

    counted = {"the": 0.05, "with": 0.01, "auk": 1e-7}
    monkeypatch.setattr(make_lexicon, "word_frequencies", lambda least: words_among(counted, least))

    (tmp_path / "text").mkdir()
    for name, text in (
        ("novels", "the puffin swims"),
        ("modern", "the app swims the app"),
        ("birds", "the auk\nan auk\nan egg the\nPUFFIN egg auk\nx1 x1 x1"),
    ):
        with lzma.open(tmp_path / "text" / f"{name}.txt.xz", "wt", encoding="utf-8") as file:
            file.write(text + "\n")
    config = Config(data=tmp_path, out=tmp_path / "en.txt", min_count_others=2, min_frequency=0)
    assert choose_words(config) == ["the", "app", "swims", "puffin", "auk", "an", "egg"]
    config = Config(data=tmp_path, out=tmp_path / "en.txt", min_count_others=3, min_frequency=1e-3)
    assert choose_words(config) == ["the", "app", "swims", "puffin", "auk", "with"]

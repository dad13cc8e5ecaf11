"""What lexicon/README.md tells its readers is so."""

import re
from functools import partial
from pathlib import Path

import pytest

from asr.g2p import pronounce
from asr.lexicon import Lexicon, parse_line, read_entries
from asr.paths import base_lexicon
from asr.phones import PhoneSet

GUIDE = (Path(__file__).parents[1] / "lexicon" / "README.md").read_text(encoding="utf-8")


def test_the_table_has_every_phone_with_a_word_that_has_it(phones: PhoneSet) -> None:
    rows = re.findall(r"^\| `(\S+)` \| (\S+) \| ([^|`]+) \|$", GUIDE, re.MULTILINE)
    assert sorted(phone for phone, _, _ in rows) == sorted(phones.phones)
    lines = set(base_lexicon().read_text(encoding="utf-8").splitlines())
    for phone, word, sounds in rows:
        assert re.fullmatch(r"\w*\*\*\w+\*\*\w*", word), word
        assert f"{word.replace('*', '')}\t{sounds}" in lines, word
        assert phone in sounds.split(), word


def test_the_examples_can_be_read(phones: PhoneSet, tmp_path: Path) -> None:
    found = []
    for i, example in enumerate(re.findall(r"```text\n(.*?)```", GUIDE, re.DOTALL)):
        file = tmp_path / f"{i}.txt"
        file.write_text(example, encoding="utf-8")
        entries, notes = read_entries(file, phones)
        assert entries and not notes
        found += entries
    told = {(e.word, " ".join(e.phones), e.weight, e.like, e.boost) for e in found}
    assert told >= {
        ("kestrovan", "", 1.0, "", 0.0),
        ("New York", "n uː j ɔː ɹ k", 1.0, "", 0.0),
        ("saoirse", "s ɪ ɹ ʃ ə", 0.5, "", 0.0),
        ("covfefe", "", 1.0, "coffee", 0.0),
        ("zolvaniq", "z ɑː l v ə n ɪ k", 1.0, "aspirin", 2.0),
    }
    lines = base_lexicon().read_text(encoding="utf-8").splitlines()
    assert {e.like for e in found if e.like} <= {line.split("\t")[0] for line in lines}


def test_stress_and_typewriter_letters_are_taken_as_told(phones: PhoneSet) -> None:
    assert "`ˈsɪɹ.ʃə` is `s ɪ ɹ ʃ ə`" in GUIDE
    assert phones.parse("ˈsɪɹ.ʃə") == phones.parse("s ɪ r ʃ ə") == ("s", "ɪ", "ɹ", "ʃ", "ə")
    assert phones.parse("g") == ("ɡ",)


@pytest.mark.parametrize(
    "line",
    [
        "saoirse s ɜː ʃ ə",
        "saoirse\ts ɜː ʃ q",
        "saoirse\tSEERSHA",
        "\ts ɜː",
        "saoirse\ts ɜː\tweight=half",
        "saoirse\ts ɜː\tweight=2",
        "saoirse\ts ɜː\tboost=inf",
        "covfefe\tlikes=coffee",
    ],
)
def test_the_errors_are_those_that_are_explained(phones: PhoneSet, line: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_line(line, phones)
    assert f"| `{error.value}` |" in GUIDE


def test_errors_and_remarks_about_files_are_explained_too(phones: PhoneSet, tmp_path: Path) -> None:
    file = tmp_path / "user.txt"
    file.write_text("٣\n", encoding="utf-8")
    with pytest.raises(ValueError) as unspoken:
        Lexicon.read([file], phones, partial(pronounce, phones=phones))
    file.write_text("saoirse\ts ɜː ʃ ə\nsaoirse\ts ɜː ʃ ə\n", encoding="utf-8")
    (remark,) = Lexicon.read([file], phones).notes
    file.write_bytes("saoirse".encode("utf-16"))
    with pytest.raises(ValueError) as encoding:
        Lexicon.read([file], phones)
    told = [str(unspoken.value).partition(":1: ")[2], remark.partition(":2: ")[2]]
    for message in (*told, str(encoding.value).partition(f"{file}: ")[2]):
        assert message and f"`{message}`" in GUIDE

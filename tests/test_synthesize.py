from __future__ import annotations

import csv
import importlib.util
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from asr.phones import PhoneSet
from asr.text import normalize
from asr.training.kokoro import MAX_SYMBOLS, SAMPLE_RATE, Kokoro, read_voices
from asr.training.synthesis import (
    Reader,
    Voice,
    align_joined,
    choose_voice,
    is_vowel,
    split_clauses,
    stress_marks,
    to_symbols,
)

REPOSITORY = Path(__file__).parents[1]
EXAMPLES = Path(__file__).parent / "examples"
PHONES = PhoneSet.read(REPOSITORY / "asr" / "pretrained" / "phones.txt")
# What the model can read, as its vocab.json lists it.
KOKORO_SYMBOLS = frozenset(
    ';:,.!?—…"()“” ̃ʣʥʦʨᵝꭧAIOQSTWYᵊ'
    "abcdefhijklmnopqrstuvwxyzɑɐɒæβɔɕçɖðʤəɚɛɜɟɡɥɨɪʝɯɰŋɳɲɴøɸθœɹɾɻʁɽʂʃʈʧʊʋʌɣɤχʎʒʔˈˌːʰʲ↓→↗↘ᵻ"
)


def _recipe():
    spec = importlib.util.spec_from_file_location("synthesize", REPOSITORY / "recipes" / "synthesize.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


recipe = _recipe()


def _words(text: str) -> tuple[str, ...]:
    return PHONES.parse(text)


def test_every_phone_has_symbols():
    for phone in PHONES.phones:
        assert set(to_symbols((phone,), ("ˈ",) if is_vowel(phone) else ())) <= KOKORO_SYMBOLS, phone


@pytest.mark.parametrize(
    ("phones", "marks", "symbols"),
    [
        ("m iː ɾ ɪ ŋ", ("ˈ", ""), "mˈiTɪŋ"),
        ("dʒ ɔɪ", ("ˈ",), "ʤˈY"),
        ("l ɪ ɾ ə l", ("ˈ", ""), "lˈɪTᵊl"),  # the last syllable is its consonant
        ("ə l", (), "əl"),  # but not where there is no syllable before it
        ("ɹ ɪ v ɚ ɹ", ("ˈ", ""), "ɹˈɪvəɹ"),  # "river in"
        ("ð ə", (), "ðə"),
        ("f æ m l i", ("ˈ", "", ""), "fˈæmli"),  # a vowel fewer than espeak has
        ("m ɪ d", ("", "ˈ"), "mˈɪd"),  # its main stress falls on what is left
    ],
)
def test_symbols(phones: str, marks: tuple[str, ...], symbols: str):
    assert to_symbols(_words(phones), marks) == symbols


def test_stress_marks_are_one_for_each_vowel():
    assert stress_marks("z ˈɑː l v ɐ n ˌɪ k", PHONES) == ("ˈ", "", "ˌ")
    assert stress_marks("f ˈaɪɚ", PHONES) == ("ˈ", "")
    assert stress_marks("", PHONES) == ()


def test_clauses_end_at_punctuation():
    assert split_clauses("Yes, Dr. Who can; can't we?") == [
        (("yes",), ","),
        (("doctor", "who", "can"), ";"),
        (("can't", "we"), "?"),
    ]
    assert split_clauses("it is 3.5, ...") == [(("it", "is", "three", "point", "five"), ".")]
    assert split_clauses(" -- ") == []


def test_words_that_espeak_joins_are_found():
    words = [_words(w) for w in ("k ʌ p", "ʌ v", "ð ə", "t iː")]
    assert align_joined(words, [_words(p) for p in ("k ʌ p", "ʌ v ð ə", "t iː")]) == [0, None, None, 2]
    assert align_joined(words[:1], [_words("k"), _words("ʌ p")]) == [None]


def test_known_words_are_spoken_as_the_lexicon_has_them():
    lexicon = {"zolvaniq": [_words("z oʊ l v ɐ n iː k")], "the": [_words("ð ə"), _words("ð i")]}
    reading = Reader(lexicon, PHONES).read(["The Zolvaniq works"], random.Random(1))[0]
    assert reading.words == ("the", "zolvaniq", "works")
    assert reading.phones == (_words("ð ə"), _words("z oʊ l v ɐ n iː k"), _words("w ɜː k s"))
    assert reading.symbols == "ðə zˈOlvənˌik wˈɜɹks."


def test_variants_are_drawn_and_stress_can_be_left_out():
    lexicon = {"the": [_words("ð ə"), _words("ð ɪ"), _words("ð i")]}
    readings = Reader(lexicon, PHONES, variants=1.0, stress=False).read(["the end"] * 40, random.Random(1))
    assert {reading.phones[0] for reading in readings} == set(lexicon["the"])
    assert not any("ˈ" in reading.symbols for reading in readings)


def test_joined_words_and_their_neighbours_keep_their_places():
    lexicon = {"of": [_words("ʌ v"), _words("ə v")], "the": [_words("ð ə")]}
    reading = Reader(lexicon, PHONES).read(["a cup of the tea"], random.Random(1))[0]
    assert reading.words == ("a", "cup", "of", "the", "tea")
    assert reading.phones[1:] == (_words("k ʌ p"), _words("ʌ v"), _words("ð ə"), _words("t iː"))


def test_voices_are_written_and_read():
    for text in ("af_heart", "af_heart:60+bm_lewis:40"):
        assert str(Voice.parse(text)) == text
    with pytest.raises(ValueError, match="add up to 100"):
        Voice.parse("af_heart:60+bm_lewis:30")


def test_drawn_voices_are_english_first():
    names = ["af_a", "am_b", "bf_c", "zf_d", "jm_e"]
    rng = random.Random(1)
    voices = [choose_voice(rng, names, 0.4, 0.3) for _ in range(500)]
    kinds = ["".join(sorted("e" if name[0] in "ab" else "f" for name, _ in v.parts)) for v in voices]
    assert {kind: round(kinds.count(kind) / 500, 1) for kind in set(kinds)} == {
        "ee": 0.4,
        "ef": 0.3,
        "e": 0.3,
    }
    for voice in voices:
        assert sum(percent for _, percent in voice.parts) == 100
        assert voice.parts[0][0][0] in "ab" and voice.parts[0][1] >= 50
        assert len({name for name, _ in voice.parts}) == len(voice.parts)


def _silent_model() -> Kokoro:
    """Voices and symbols without the network: enough for what is checked before it runs."""
    voices = {
        name: np.full((MAX_SYMBOLS + 1, 256), value, np.float32) for name, value in (("a", 1.0), ("b", 3.0))
    }
    return Kokoro(model=None, vocabulary={"a": 1, ".": 2}, voices=voices)  # type: ignore[arg-type]


def test_style_is_the_weighted_sum():
    style = _silent_model().style(Voice.parse("a:75+b:25"), 10)
    assert style.shape == (1, 256) and np.allclose(style, 1.5)


@pytest.mark.parametrize(
    ("symbols", "voice", "message"),
    [
        ("a§", "a", "no symbol '§'"),
        ("a" * 510, "a", "split the sentence"),
        ("", "a", "split"),
        ("a", "c", "no voice 'c'"),
    ],
)
def test_what_cannot_be_said(symbols: str, voice: str, message: str):
    with pytest.raises(ValueError, match=message):
        _silent_model().say(symbols, Voice.parse(voice))


def test_a_missing_package_names_the_way_to_get_it(tmp_path: Path):
    for read in (Kokoro.open, read_voices):
        with pytest.raises(ValueError, match="--fetch"):
            read(tmp_path)


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda", "no CUDA device is available here; use --device cpu"), ("tpu", "unknown device 'tpu'")],
)
def test_a_device_that_is_not_there_is_one_line(
    device: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(typer.Exit):
        recipe.cli(kokoro=tmp_path, out=tmp_path, words=[tmp_path / "names.txt"], device=device)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def _plan(folder: Path, *rows: str) -> Path:
    path = folder / "plan.tsv"
    path.write_text("\n".join(["path\tvoice\tspeed\ttext", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "row", ["a.opus\taf_heart\tfast\thello", "a.opus\taf_heart\t1.0\t--", "a.opus\taf_heart"]
)
def test_a_bad_plan_names_its_line(tmp_path: Path, row: str):
    plan = _plan(tmp_path, "b.opus\taf_heart\t1.0\thello", row)
    with pytest.raises(ValueError, match=r"plan\.tsv:3: "):
        recipe.read_plan(plan, Reader({}, PHONES))


def test_what_is_there_is_kept(tmp_path: Path):
    plan = _plan(tmp_path, "b.opus\taf_heart\t1.0\tHello, you!")
    recipe.write(tmp_path / "b.opus", np.zeros(8000, np.float32))
    before = (tmp_path / "b.opus").read_bytes()
    recipe.main(recipe.Config(kokoro=tmp_path / "no model here", out=tmp_path, plan=plan))
    assert (tmp_path / "b.opus").read_bytes() == before
    rows = (tmp_path / "manifest.tsv").read_text(encoding="utf-8").splitlines()
    assert rows == ["path\tduration\tspeaker\ttext", "b.opus\t0.500\tkokoro-af_heart\tHELLO YOU"]
    phones = (tmp_path / "manifest.phones.tsv").read_text(encoding="utf-8").splitlines()
    assert phones == ["path\tphones", "b.opus\th ə l oʊ | j uː"]
    os.utime(tmp_path / "b.opus", (0, 0))  # older than the plan
    with pytest.raises(ValueError, match="--fetch"):
        recipe.main(recipe.Config(kokoro=tmp_path / "no model here", out=tmp_path, plan=plan))


def test_loud_speech_is_turned_down_not_clipped(tmp_path: Path):
    import soundfile

    waveform = (2 * np.sin(np.arange(16_000) * 0.2)).astype(np.float32)
    recipe.write(tmp_path / "a.flac", waveform)
    written, rate = soundfile.read(tmp_path / "a.flac")
    assert rate == 16_000 and np.abs(written - 0.495 * waveform).max() < 1e-3


def test_word_lists_go_into_sentences(tmp_path: Path):
    (tmp_path / "names.txt").write_text("Zolvaniq\nKestrovan\n", encoding="utf-8")
    config = recipe.Config(kokoro=tmp_path, out=tmp_path, words=(tmp_path / "names.txt",), repeats=3)
    said = recipe.sentences(config, random.Random(1))
    assert len(set(said)) == 6
    assert [sum(name in s for s in said) for name in ("Zolvaniq", "Kestrovan")] == [3, 3]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize("name", ["examples", "zero_shot"])
def test_example_recordings_are_what_their_plan_says(name: str):
    import soundfile

    rows, plan = _rows(EXAMPLES / f"{name}.tsv"), _rows(EXAMPLES / f"{name}.plan.tsv")
    assert [row["path"] for row in rows] == [row["path"] for row in plan]
    for row, planned in zip(rows, plan, strict=True):
        assert row["text"].lower() == normalize(planned["text"])
        info = soundfile.info(EXAMPLES / row["path"])
        assert (info.channels, info.samplerate) == (1, 16_000)
        assert info.duration == pytest.approx(float(row["duration"]), abs=0.001)


def test_only_the_invented_names_are_missing_from_the_lexicon():
    lines = (REPOSITORY / "lexicon" / "en.txt").read_text(encoding="utf-8").splitlines()
    known = {line.partition("\t")[0] for line in lines}
    spoken = {w for row in _rows(EXAMPLES / "zero_shot.tsv") for w in row["text"].lower().split()}
    invented = set((EXAMPLES / "zero_shot_words.txt").read_text(encoding="utf-8").split())
    assert spoken - known == invented
    for row in _rows(EXAMPLES / "examples.tsv"):
        name = Path(row["path"]).stem.removeprefix("name-")
        assert set(row["text"].lower().split()) - known == ({name} if "name-" in row["path"] else set())


@pytest.mark.slow
def test_the_model_speaks(tmp_path: Path):
    folder = os.environ.get("KOKORO")
    if not folder:
        pytest.skip("set KOKORO to the folder that recipes/synthesize.py --fetch fills")
    model = Kokoro.open(folder)
    assert set(model.vocabulary) == KOKORO_SYMBOLS
    slow, fast = (
        model.say("həlˈO wˈɜɹld.", Voice.parse("af_heart:60+bm_lewis:40"), speed) for speed in (0.8, 1.3)
    )
    assert slow.dtype == np.float32 and 0.5 < len(fast) / SAMPLE_RATE < len(slow) / SAMPLE_RATE < 4
    assert np.abs(slow).max() > 0.05

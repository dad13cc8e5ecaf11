from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr import audio, paths
from asr.audio import SAMPLE_RATE, AudioError
from asr.decoder import for_embedded_model
from asr.lexicon import LexiconError
from asr.manifest import read_manifest
from asr.metrics import Errors, align, count_errors, phone_errors
from asr.text import normalize
from asr.transcribe import Failure, Recognizer, _combine, choose_device
from asr.types import Hypothesis, Transcript

READ = ("read-1", "read-2", "name-zolvaniq")


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * SAMPLE_RATE), np.float32)


def word_errors(reference: str, heard: str) -> Errors:
    return count_errors(align(normalize(reference).split(), heard.split()))


@pytest.fixture(scope="module")
def single(recognizer: Recognizer, examples: Path) -> dict[str, Transcript]:
    return {name: recognizer.transcribe([examples / f"{name}.opus"])[0] for name in READ}


def test_clear_speech_is_written_down(single: dict[str, Transcript], examples: Path):
    utterances = {u.path.stem: u for u in read_manifest(examples / "examples.tsv")}
    errors = sum((word_errors(utterances[n].text, single[n].text) for n in ("read-1", "read-2")), Errors())
    assert errors.rate < 0.25
    for name in READ:
        assert single[name].duration_s == pytest.approx(utterances[name].duration, abs=0.01)


def test_words_have_times_in_order_and_the_phones_of_their_spelling(
    recognizer: Recognizer, single: dict[str, Transcript]
):
    transcript, spoken = single["read-1"], recognizer.lexicon.pronunciations()
    assert " ".join(w.text for w in transcript.words) == transcript.text
    for word in transcript.words:
        assert word.phones in spoken[word.text]
    edges = [t for w in transcript.words for t in (w.start_s, w.end_s)]
    assert edges == sorted(edges) and 0 < edges[0] < 1 and 3 < edges[-1] <= transcript.duration_s


def test_together_or_alone_results_are_the_same_and_in_order(
    recognizer: Recognizer, single: dict[str, Transcript], examples: Path, tmp_path: Path
):
    (tmp_path / "empty.wav").touch()
    recordings = [examples / f"{name}.opus" for name in READ]
    told: list[float] = []
    results = list(recognizer.stream([*recordings[:2], tmp_path / "empty.wav", recordings[2]], told.append))
    failure = results.pop(2)
    assert isinstance(failure, Failure) and failure.reason == f"{tmp_path}/empty.wav: the file is empty"
    for name, result in zip(READ, results, strict=True):
        assert isinstance(result, Transcript) and Path(result.path).stem == name
        assert result.text == single[name].text
        assert result.score == pytest.approx(single[name].score, rel=0.02)
    assert sum(told) == pytest.approx(sum(t.duration_s for t in single.values()), abs=0.01)
    with pytest.raises(AudioError, match="empty"):
        recognizer.transcribe([recordings[0], tmp_path / "empty.wav"])


def test_long_recordings_are_the_sum_of_their_parts(
    recognizer: Recognizer, single: dict[str, Transcript], examples: Path, tmp_path: Path
):
    parts = [audio.load(examples / f"{name}.opus") for name in READ] * 2
    waveform = np.concatenate([np.concatenate([part, silence(3)]) for part in parts])
    soundfile.write(tmp_path / "long.flac", waveform, SAMPLE_RATE)
    transcript = recognizer.transcribe([tmp_path / "long.flac"])[0]
    assert word_errors(" ".join(single[n].text for n in READ * 2), transcript.text).rate < 0.2
    starts = np.cumsum([0, *(len(part) / SAMPLE_RATE + 3 for part in parts)])
    first = [next(w for w in transcript.words if w.start_s >= s - 0.2) for s in starts[:-1]]
    for word, begin, name in zip(first, starts, READ * 2, strict=False):
        assert word.start_s - begin == pytest.approx(single[name].words[0].start_s, abs=0.15)


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.05, 3.0, 60.0])
def test_silence_and_scraps_have_no_words(recognizer: Recognizer, seconds: float):
    hiss = np.random.default_rng(0).standard_normal(int(seconds * SAMPLE_RATE)).astype(np.float32)
    for waveform in (silence(seconds), 1e-2 * hiss[: SAMPLE_RATE // 20]):
        transcript = recognizer.transcribe_waveform(waveform)
        assert transcript.text == "" and transcript.words == ()
        assert transcript.duration_s == pytest.approx(len(waveform) / SAMPLE_RATE)


def test_emissions_are_probabilities_in_time(recognizer: Recognizer, examples: Path, phones):
    waveform = audio.load(examples / "read-1.opus")
    emissions = recognizer.emissions(waveform)
    assert emissions.log_probs.shape[1] == len(phones)
    assert np.allclose(np.exp(emissions.log_probs).sum(1), 1, atol=1e-3)
    assert len(emissions.log_probs) * emissions.frame_s == pytest.approx(len(waveform) / SAMPLE_RATE, abs=0.1)


def test_phones_are_heard_without_a_lexicon(recognizer: Recognizer, examples: Path):
    rows = (examples / "examples.phones.tsv").read_text(encoding="utf-8").splitlines()[1:]
    errors = Errors()
    for path, spoken in (row.split("\t") for row in rows[:2]):
        heard = recognizer.transcribe([examples / path])[0].sounds
        errors += phone_errors([[word.split()] for word in spoken.split(" | ")], heard)
    assert errors.rate < 0.3


def hypothesis(words: str, score: float) -> Hypothesis:
    return Hypothesis(
        words=tuple(words.split()), token_ids=(), token_frames=(), word_ends=(), acoustic_score=score,
        lm_score=0.0, score=score,
    )  # fmt: skip


def test_alternatives_of_the_whole_are_the_best_of_all_combinations():
    segments = [
        [hypothesis("a", -1), hypothesis("a b", -1.5), hypothesis("", -4)],
        [hypothesis("b c", -2), hypothesis("c", -2.25), hypothesis("d", -2.5)],
        [hypothesis("e", 0), hypothesis("f", -0.3)],
    ]
    expected: dict[str, float] = {}
    for ways in itertools.product(*segments):
        text = " ".join(" ".join(h.words) for h in ways).strip()
        expected[text] = max(expected.get(text, -99.0), sum(h.score for h in ways))
    best = sorted(expected.items(), key=lambda item: -item[1])
    assert len({text for text, _ in best}) < 18  # "a b c e" can be had in two ways
    for nbest in (1, 2, 5):
        assert _combine(segments, nbest) == tuple(best[:nbest])
    assert _combine([], 3) == (("", 0.0),)


def test_devices():
    import torch

    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="unknown device 'tpu': take auto, cpu or cuda"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"no CUDA device .* --device cpu"):
            choose_device("cuda")


def test_a_line_that_repeats_the_base_lexicon_replaces_it(
    recognizer: Recognizer, single: dict[str, Transcript], examples: Path, tmp_path: Path
):
    assert "river" in single["read-1"].text and "cold" in single["read-1"].text
    spoken = recognizer.lexicon.pronunciations()
    lines = [f"river\t{' '.join(phones)}\tboost=-40" for phones in spoken["river"]]
    lines += [f"cold\t{' '.join(phones)}" for phones in spoken["cold"][:1]]
    (tmp_path / "words.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    mine = Recognizer.load(user_lexicon=False, lexicon=[tmp_path / "words.txt"], device="cpu")
    transcript = mine.transcribe([examples / "read-1.opus"])[0]
    assert "river" not in transcript.text.split() and "cold" in transcript.text
    assert mine.added.words() == {"river", "cold"}
    assert len(mine.lexicon.entries) == len(recognizer.lexicon.entries) + len(lines)


@pytest.mark.parametrize("option", ["lexicon", "lm", "model", "neural_lm"])
def test_a_part_that_is_missing_is_named(tmp_path: Path, option: str):
    missing = tmp_path / "none"
    with pytest.raises(ValueError, match=f"{missing}: no "):
        Recognizer.load(user_lexicon=False, **{option: [missing] if option == "lexicon" else missing})


def test_the_neural_model_is_there_where_it_belongs(recognizer: Recognizer, tmp_path: Path):
    assert recognizer.decoder._rescorer is not None
    (tmp_path / "menu.txt").write_text("latte\n", encoding="utf-8")
    embedded = os.path.relpath(paths.language_model())
    for there, given in (
        (True, {"lm": embedded}),
        (False, {"neural_lm": "off"}),
        (False, {"only": tmp_path / "menu.txt"}),
        (False, {"options": for_embedded_model(unknown="mark")}),
        (True, {"options": for_embedded_model(unknown="mark"), "neural_lm": paths.neural_lm()}),
    ):
        loaded = Recognizer.load(user_lexicon=False, device="cpu", **given)
        assert (loaded.decoder._rescorer is not None) == there, given
    with pytest.raises(ValueError, match=r"--neural-lm.*needs a language model \(--lm\)"):
        Recognizer.load(only=tmp_path / "menu.txt", neural_lm=paths.neural_lm(), device="cpu")


def test_bad_lexicon_lines_and_words_stop_the_load(tmp_path: Path):
    (tmp_path / "words.txt").write_text("fine\tf aɪ n\nbad\tq q\n", encoding="utf-8")
    with pytest.raises(LexiconError, match=r"words\.txt:2: unknown phone 'q'"):
        Recognizer.load(user_lexicon=False, lexicon=[tmp_path / "words.txt"])
    with pytest.raises(LexiconError, match=r"--words:2: '\.\.\.' cannot be guessed"):
        Recognizer.load(user_lexicon=False, words=["fine", "..."])
    (tmp_path / "words.txt").write_text("Владимир\n", encoding="utf-8")
    with pytest.raises(LexiconError, match=r"words\.txt:1: 'Владимир' cannot be guessed"):
        Recognizer.load(user_lexicon=False, lexicon=[tmp_path / "words.txt"])


def test_an_edited_file_is_seen_at_the_next_call(examples: Path, tmp_path: Path):
    mine = tmp_path / "mine.txt"
    mine.write_text("# nothing yet\n", encoding="utf-8")
    recognizer = Recognizer.load(user_lexicon=False, lexicon=[mine], device="cpu")

    def hear() -> str:
        return recognizer.transcribe([examples / "name-kestrovan.opus"])[0].text

    before = hear()
    assert "kestrovan" not in before
    mine.write_text("kestrovan\n", encoding="utf-8")
    assert "kestrovan" in hear()
    mine.write_text("kestrovan\tb l ʌ m p\n", encoding="utf-8")
    assert hear() == before
    mine.write_text("kestrovan\tq\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.txt:1"):
        hear()
    mine.write_text("kestrovan\n", encoding="utf-8")
    assert "kestrovan" in hear()
    mine.unlink()
    assert hear() == before


def test_a_single_name_is_a_list_of_one(recognizer: Recognizer, examples: Path):
    [found] = recognizer.transcribe(str(examples / "name-kestrovan.opus"), words="kestrovan")
    assert "kestrovan" in found.text
    with pytest.raises(AudioError, match=r"none\.wav: no such file"):
        recognizer.transcribe("none.wav")
    with pytest.raises(ValueError, match=r"none\.txt: no such lexicon file"):
        Recognizer.load(lexicon="none.txt")


def test_words_for_one_call_only_while_others_transcribe(recognizer: Recognizer, examples: Path):
    from concurrent.futures import ThreadPoolExecutor

    path = [examples / "name-kestrovan.opus"]

    def hear(words: list[str]) -> str:
        return recognizer.transcribe(path, words=words)[0].text

    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(hear, [["kestrovan"], []] * 6))
    assert all("kestrovan" in text for text in texts[::2])
    assert all("kestrovan" not in text for text in texts[1::2])


def test_a_closed_list_of_words(examples: Path, tmp_path: Path):
    menu = tmp_path / "menu.txt"
    menu.write_text("river\nmorning\nwater\ncold\nclear\nwalked\n", encoding="utf-8")
    closed = Recognizer.load(only=menu, device="cpu")
    heard = closed.transcribe([examples / "read-1.opus"])[0].text.split()
    assert set(heard) <= set(menu.read_text().split())
    assert {"river", "morning", "water"} <= set(heard)
    menu.write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no words"):
        Recognizer.load(only=menu, device="cpu")
    with pytest.raises(ValueError, match="no such lexicon file"):
        Recognizer.load(only=tmp_path / "none.txt", device="cpu")


def test_like_a_word_that_nothing_knows_is_remarked(tmp_path: Path):
    mine = tmp_path / "mine.txt"
    mine.write_text("covfefe\tlike=coffee\nzolvaniq\tlike=brelvado\n", encoding="utf-8")
    recognizer = Recognizer.load(user_lexicon=False, lexicon=[mine], device="cpu")
    (note,) = recognizer.added.notes
    assert "mine.txt:2" in note and "brelvado" in note and "no effect" in note


@pytest.mark.slow
def test_words_of_no_lexicon_are_spelt_as_they_sound(examples: Path) -> None:
    recording = [examples / "zero_shot" / "clandiver-2.opus"]
    texts = {}
    for unknown in ("mark", "spell"):
        options = for_embedded_model(unknown=unknown, unknown_score=-1.0)
        recognizer = Recognizer.load(user_lexicon=False, device="cpu", options=options)
        texts[unknown] = recognizer.transcribe(recording)[0].text.split()
    marked = [i for i, word in enumerate(texts["mark"]) if word.startswith("<")]
    assert marked and len(texts["mark"]) == len(texts["spell"])
    for i, (word, spelt) in enumerate(zip(texts["mark"], texts["spell"], strict=True)):
        assert spelt == word if i not in marked else spelt.isalpha() and spelt.isascii()

"""New sentences have each word once, as it was said, with its labels; speakers stay with themselves."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from test_snippets import AS_IT_IS, SPOKEN, WORD_STARTS, classes_of

from asr.model.features import LogMel
from asr.training.prepared import UNLABELLED, WAVEFORMS, Alignments, Prepared
from asr.training.snippets import WordPlaces
from asr.training.splices import Phrase, SpliceConfig, join, plan_splices
from asr.training.waveform_batches import WaveformBatchConfig, WaveformSource

RECIPES = Path(__file__).parents[1] / "recipes"
FRAMES = 56  # of a recording: 10 silence, a word of 12, 10 silence, two words of 12
FIRSTS, LASTS = (10, 32, 44), (22, 44, 56)


def plan(speakers: list[tuple[str, str]], config: SpliceConfig, seed: int = 1) -> list[list[Phrase]]:
    count = len(speakers)
    classes = classes_of(SPOKEN, 6)
    words = WordPlaces.of([classes] * count, [np.arange(1, 7)] * count, [WORD_STARTS] * count)
    return list(plan_splices(speakers, [len(classes)] * count, words, config, np.random.default_rng(seed)))


def test_each_word_is_said_once_and_whole() -> None:
    sentences = plan([("a", "")] * 200, SpliceConfig(words=2, pause=7, lasting_s=(0.3, 0.6)))
    assert max(map(len, sentences)) > 2
    phrases = [phrase for sentence in sentences for phrase in sentence]
    said = Counter((of.recording, k) for of in phrases for k in range(of.first_phone, of.last_phone))
    assert said == Counter((i, k) for i in range(200) for k in range(6))
    edges = {(0, 2): set(), (2, 4): set(), (4, 6): set(), (0, 4): set(), (2, 6): set()}
    for of in phrases:
        first, last = of.first_phone // 2, of.last_phone // 2 - 1
        edges[of.first_phone, of.last_phone].add((FIRSTS[first] - of.first, of.last - LASTS[last]))
    # Silence at either end, up to `pause` frames, and up to half of that between two words, nothing of words.
    for (first, last), silences in edges.items():
        before, after = ({of[side] for of in silences} for side in (0, 1))
        assert before == {0: set(range(8)), 2: set(range(6)), 4: {0}}[first]
        assert after == {2: set(range(6)), 4: {0}, 6: {0}}[last]
    # Phrases of one recording come apart.
    assert any(one.recording != other.recording for of in sentences for one, other in itertools.pairwise(of))
    assert plan([("a", "")] * 50, SpliceConfig(), 2) != plan([("a", "")] * 50, SpliceConfig(), 3)


def test_sentences_last_as_long_as_is_said() -> None:
    sentences = plan([("a", "")] * 90, SpliceConfig(recordings=8, lasting_s=(0.5, 0.5), words=1, pause=0))
    lengths = [sum(of.last - of.first for of in sentence) for sentence in sentences]
    # Words of 12 frames: five of them make 60, what a group leaves over makes a shorter one.
    assert set(lengths) <= {12, 24, 36, 48, 60} and Counter(lengths).most_common(1)[0][0] == 60


def test_speakers_and_sets_stay_with_themselves() -> None:
    known = [("a", "anna")] * 6 + [("a", "bert")] * 6
    unknown = [("a", "")] * 7 + [("a", "carl")] * 2 + [("b", "")] * 5
    speakers = known + unknown
    together = set()
    for sentence in plan(speakers, SpliceConfig(words=1, lasting_s=(2, 3))):
        together.add(frozenset(speakers[of.recording] for of in sentence))
    mixed = {of for of in together if len(of) > 1}
    assert mixed == {frozenset([("a", ""), ("a", "carl")])}
    assert {("a", "anna"), ("a", "bert"), ("b", "")} <= set().union(*together)


def test_a_joint_sentence_sounds_as_its_parts() -> None:
    rng = np.random.default_rng(3)
    recordings = [rng.integers(-9_000, 9_000, 55 * 160 + 90).astype(np.int16) for _ in range(2)]
    recordings[1] = (recordings[1] * 0.5).astype(np.int16)
    phrases = [Phrase(0, 10, 30, 0, 1), Phrase(1, 0, 20, 0, 1), Phrase(1, 40, 56, 0, 1)]
    heard = join(phrases, [recordings[of.recording] for of in phrases])
    assert heard.dtype == np.int16 and len(heard) == 56 * 160 - 80
    log_mel, at = LogMel(), 0

    def features(waveform: np.ndarray) -> np.ndarray:
        return log_mel(torch.from_numpy(waveform / np.float32(32_768))[None], torch.tensor([0]))[0][0].numpy()

    joint = features(heard)
    assert len(joint) == 56
    for of in phrases:
        alone = features(recordings[of.recording])[of.first : of.last]
        if of.recording:
            alone = alone + 2 * np.log(2)  # all have the level of the first
        inside = slice(2, of.last - of.first - 2)  # a window that reaches over the cut hears both sides
        assert np.abs(joint[at : at + len(alone)] - alone)[inside].max() < 0.05
        at += len(alone)
    # What a cut does to a tone: no sample jumps.
    tone = (9_000 * np.sin(2 * np.pi * 200 * np.arange(16_000) / 16_000)).astype(np.int16)
    cut = join([Phrase(0, 3, 20, 0, 1), Phrase(0, 50, 71, 0, 1)], [tone, tone])
    assert np.abs(np.diff(cut.astype(int))).max() <= np.abs(np.diff(tone.astype(int))).max() + 9_000 // 63
    # A whisper beside speech is not made deafening.
    quiet = join([Phrase(0, 0, 10, 0, 1), Phrase(1, 0, 10, 0, 1)], [recordings[0], recordings[0] // 100])
    assert np.abs(quiet[10 * 160 :]).max() <= 4 * 91


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """A prepared and aligned folder of six recordings of noise, whose phones tell which one each is; the last
    is without labels."""
    folder = tmp_path / "real"
    folder.mkdir()
    rng = np.random.default_rng(2)
    frames, samples = FRAMES, FRAMES * 160 - 40
    rows = ["id\tset\tspeaker\ttext\t1.00\tsamples"]
    for i in range(6):
        spans = [f"{length * i}:{length * (i + 1)}" for length in (frames, samples)]
        rows.append("\t".join([f"u{i}", "set", "anna", "A B C", *spans]))
    (folder / "utterances.tsv").write_text("\n".join(rows) + "\n")
    (folder / "features-1.00.raw").write_bytes(np.zeros((6 * frames, 80), np.float16).tobytes())
    (folder / WAVEFORMS).write_bytes(rng.integers(-9_000, 9_000, 6 * samples).astype(np.int16).tobytes())
    classes = [
        classes_of([phone + 6 * i if phone else 0 for phone in SPOKEN], 6) for i in range(5)
    ] + [np.full(frames, UNLABELLED, np.uint8)]  # fmt: skip
    phones = np.arange(1, 37).astype(np.int16)
    digest = Prepared.open(folder).digest()
    aligned = Alignments(phones, np.arange(7) * 6, np.concatenate(classes), digest, np.tile(WORD_STARTS, 6))
    aligned.save(folder / "alignments.npz")
    return folder


def test_the_recipe_writes_what_training_reads(
    speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))
    from splice import Config, main

    out = tmp_path / "spliced"
    splices = SpliceConfig(words=2, pause=3, lasting_s=(0.4, 0.8))
    main(Config(prepared=speech, out=out, splices=splices))
    prepared, alignments = Prepared.open(out), Alignments.open(out / "alignments.npz")
    alignments.check_of(prepared)
    assert prepared.waveforms is not None
    every = np.concatenate([alignments.targets(i) for i in range(len(prepared.utterances))])
    assert sorted(every) == list(range(1, 31))  # the last recording's words have no places
    for i, utterance in enumerate(prepared.utterances):
        assert (utterance.set, utterance.speaker, utterance.text) == ("set", "anna", "")
        first, last = utterance.spans["1.00"]
        classes = alignments.classes[first:last]
        phones = classes[np.flatnonzero(np.diff(classes // 3, prepend=0))] // 3
        assert phones[phones > 0].tolist() == alignments.targets(i).tolist()
        assert alignments.starts_of_words(i).tolist() == (alignments.targets(i) % 2 == 1).tolist()
        # The features are those of the waveform.
        assert utterance.samples is not None
        waveform = prepared.waveforms[slice(*utterance.samples)] / np.float32(32_768)
        mel, _ = LogMel()(torch.from_numpy(waveform)[None], torch.tensor([0]))
        assert np.abs(prepared.frames(i) - mel[0].numpy()).max() < 0.02
    source = WaveformSource(
        [(Prepared.open(speech), Alignments.open(speech / "alignments.npz")), (prepared, alignments)],
        WaveformBatchConfig(seconds=60, augment=AS_IT_IS, snippets=0.5), torch.device("cpu"),
    )  # fmt: skip
    heard = sum(len(batch.features) for batch in source.epoch(0))
    assert heard == len(source.usable) == 6 + len(prepared.utterances)


def test_errors_say_what_to_do(speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))
    from splice import Config, main

    out = tmp_path / "spliced"
    path = speech / "alignments.npz"
    aligned = Alignments.open(path)
    Alignments(aligned.phones, aligned.offsets, aligned.classes, aligned.digest).save(path)
    with pytest.raises(ValueError, match=r"no places of words: run recipes/align\.py again"):
        main(Config(prepared=speech, out=out))
    Alignments(aligned.phones, aligned.offsets[1:], aligned.classes, aligned.digest).save(path)
    with pytest.raises(ValueError, match=r"real: the alignments were made from other features"):
        main(Config(prepared=speech, out=out))
    path.unlink()
    with pytest.raises(ValueError, match=r"no alignments: run recipes/align\.py"):
        main(Config(prepared=speech, out=out))
    aligned.save(path)
    table = (speech / "utterances.tsv").read_text().splitlines()
    (speech / "utterances.tsv").write_text("\n".join(row.rsplit("\t", 1)[0] for row in table) + "\n")
    with pytest.raises(ValueError, match=r"no waveforms: prepare it with recipes/prepare\.py --waveforms"):
        main(Config(prepared=speech, out=out))
    assert not out.exists()
    before = sorted(path.name for path in speech.iterdir())
    with pytest.raises(ValueError, match="is the prepared speech itself: name another folder"):
        main(Config(prepared=speech, out=speech / ".." / speech.name))
    assert sorted(path.name for path in speech.iterdir()) == before

"""A snippet is the words it says with their labels, in silence; nothing is cut where words are unknown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from asr.model.features import LogMel, normalize_features
from asr.training.prepared import UNLABELLED, WAVEFORMS, Alignments, Prepared
from asr.training.snippets import Extracts, SnippetConfig, WordPlaces
from asr.training.waveform_augment import WaveformAugmentConfig
from asr.training.waveform_batches import WaveformBatchConfig, WaveformSource

CPU = torch.device("cpu")
AS_IT_IS = WaveformAugmentConfig(speed=(1, 1), room=0, noise=0, warp=0, narrow=0, gain_db=(0, 0))
# Ten frames of silence, then words of two phones of six frames each, silence between the first two.
SPOKEN = [0, 1, 2, 0, 3, 4, 5, 6]
WORD_STARTS = np.array([True, False] * 3)


def classes_of(spoken: list[int], frames: int) -> np.ndarray:
    """A third of `frames` for each state, of silence ten frames in its first."""
    parts = [
        np.repeat(3 * phone + np.arange(3), frames // 3) if phone else np.zeros(10, int) for phone in spoken
    ]
    return np.concatenate(parts).astype(np.uint8)


def test_places_of_words() -> None:
    classes = classes_of(SPOKEN, 6)
    phones = np.arange(1, 7).astype(np.int16)
    twice = np.array([1, 1], np.int16)
    places = WordPlaces.of(
        [classes, classes, classes, np.full(20, UNLABELLED, np.uint8), classes_of([1, 1], 3)],
        [phones, phones[::-1], phones, phones, twice],
        [WORD_STARTS, WORD_STARTS, WORD_STARTS[:0], WORD_STARTS, np.array([True, True])],
    )
    # Frames of other phones, unknown words and frames without labels have none; a phone said twice is two.
    assert np.diff(places.offsets).tolist() == [3, 0, 0, 0, 2]
    assert places.places.tolist() == [
        [10, 22, 0, 2], [32, 44, 2, 4], [44, 56, 4, 6], [0, 3, 0, 1], [3, 6, 1, 2],
    ]  # fmt: skip


def extracts(count: int, frames: int) -> Extracts:
    """Recordings of six phones, one behind the other."""
    firsts, nothing = np.arange(count), np.zeros(count, np.int64)
    return Extracts(
        starts=firsts * frames * 160, lengths=nothing + frames * 160, first_frames=firsts * frames,
        frames=nothing + frames, first_phones=firsts * 6, last_phones=firsts * 6 + 6,
        before=nothing, after=nothing,
    )  # fmt: skip


def test_cuts_are_of_whole_words_with_a_margin() -> None:
    classes = classes_of(SPOKEN, 6)
    count = 400
    places = WordPlaces.of([classes] * count, [np.arange(1, 7)] * count, [WORD_STARTS] * count)
    whole = extracts(count, len(classes))
    config = SnippetConfig(words=2, margin=3, total_s=(0.3, 0.5))
    cut = places.cut(whole, np.arange(count), config, np.random.default_rng(1))
    firsts, lasts = cut.first_phones - whole.first_phones, cut.last_phones - whole.first_phones
    assert {*zip(firsts.tolist(), lasts.tolist(), strict=True)} == {(0, 2), (2, 4), (4, 6), (0, 4), (2, 6)}
    begins = cut.first_frames - whole.first_frames
    for first, begin in zip(firsts, begins, strict=True):
        assert 0 <= {0: 10, 2: 32, 4: 44}[first] - begin <= 3
    for last, end in zip(lasts, begins + cut.frames, strict=True):
        assert 0 <= end - {2: 22, 4: 44, 6: 56}[last] <= (0 if last == 6 else 3)
    assert (cut.starts - whole.starts == 160 * begins).all() and (cut.lengths == 160 * cut.frames).all()
    total = cut.total_frames()
    assert (total >= np.maximum(cut.frames, 30)).all() and (total <= np.maximum(cut.frames, 50)).all()
    assert 0.4 < (cut.before == 0).mean() < 0.6 and cut.after.min() == 0
    again = places.cut(whole, np.arange(count), config, np.random.default_rng(1))
    assert np.array_equal(again.before, cut.before) and np.array_equal(again.starts, cut.starts)


@pytest.fixture
def speech(tmp_path: Path) -> tuple[Prepared, Alignments]:
    """Five recordings of noise of three words each; the last has no labels."""
    rng = np.random.default_rng(2)
    classes = classes_of(SPOKEN, 12)
    waveforms = rng.integers(-9_000, 9_000, (5, (len(classes) - 1) * 160 + 80)).astype(np.int16)
    rows = ["id\tset\tspeaker\ttext\t1.00\tsamples"]
    for i, _ in enumerate(waveforms):
        frames, samples = ([n * k for k in (i, i + 1)] for n in (len(classes), waveforms.shape[1]))
        rows.append(f"u{i}\tset\tspeaker\tA B C\t{frames[0]}:{frames[1]}\t{samples[0]}:{samples[1]}")
    (tmp_path / "utterances.tsv").write_text("\n".join(rows) + "\n")
    (tmp_path / "features-1.00.raw").write_bytes(np.zeros((5 * len(classes), 80), np.float16).tobytes())
    (tmp_path / WAVEFORMS).write_bytes(waveforms.tobytes())
    every = np.concatenate([np.tile(classes, 4), np.full(len(classes), UNLABELLED, np.uint8)])
    # Other phones in each recording tell which one it is.
    phones = np.concatenate([np.arange(1, 7) + 6 * i for i in range(5)]).astype(np.int16)
    shift = np.repeat([0, 6, 12, 18, 0], len(classes)) * 3
    every[every != UNLABELLED] += ((every > 2) * shift).astype(np.uint8)[every != UNLABELLED]
    aligned = Alignments(phones, np.arange(6) * 6, every, word_starts=np.tile(WORD_STARTS, 5))
    return Prepared.open(tmp_path), aligned


def test_a_batch_of_snippets(speech) -> None:
    config = WaveformBatchConfig(
        seconds=30, mels=(0, 0), times=(1000, 0), augment=AS_IT_IS, snippets=1.0,
        cut=SnippetConfig(words=1, margin=0, total_s=(1.0, 1.5)),
    )  # fmt: skip
    prepared, _ = speech
    assert prepared.waveforms is not None
    (batch,) = WaveformSource([speech], config, CPU).epoch(3)
    assert batch.features.shape[0] == 5
    whole, snippets = 0, 0
    for row in range(5):
        target = batch.targets[row, : batch.target_lengths[row]].tolist()
        recording, first = divmod(target[0] - 1, 6)
        if recording == 4:
            assert target == [25, 26, 27, 28, 29, 30]  # no labels: it stays whole
            whole += 1
            continue
        snippets += 1
        assert first % 2 == 0 and target == [target[0], target[0] + 1]
        # What is heard is the word's samples, after silence of whole frames.
        labels = batch.classes[row]
        place = {0: 10, 2: 44, 4: 68}[first]
        start, end = prepared.utterances[recording].samples
        start += place * 160
        waveform = prepared.waveforms[start : min(start + 24 * 160, end)] / np.float32(32_768)
        length = int(batch.lengths[row])
        total = (length - 1) * 160
        assert 1.0 * 16_000 <= total <= 1.5 * 16_000
        # The margin is 0: all before the word is silence, of which the labels tell how much.
        found = []
        for before in range(0, length - 23):
            alone = np.zeros(total, np.float32)
            alone[before * 160 : before * 160 + len(waveform)] = waveform[: total - before * 160]
            mel, frames = LogMel()(torch.from_numpy(alone)[None], torch.tensor([total]))
            expected = normalize_features(mel, frames)[0]
            found.append((batch.features[row, :length] - expected).abs().max().item())
        before = int(np.argmin(found))
        assert found[before] < 0.02
        # An encoder frame has the label of its middle one, if that is the word's.
        middles = [3 * k + 1 - before for k in range(len(labels))]
        inside = [0 <= middle < 24 for middle in middles]
        said = np.repeat(3 * np.repeat(target, 3) + np.tile(np.arange(3), 2), 4)  # four frames a state
        expected = [said[middle] if spoken else -1 for middle, spoken in zip(middles, inside, strict=True)]
        assert labels.tolist() == expected
        assert (batch.left[row] == -1).all() and (batch.right[row] == -1).all()
    assert (whole, snippets) == (1, 4)


def test_without_known_words_there_are_none(speech) -> None:
    prepared, alignments = speech
    forgotten = Alignments(alignments.phones, alignments.offsets, alignments.classes)
    with pytest.raises(ValueError, match=r"needs the places of words: run recipes/align\.py again"):
        WaveformSource([(prepared, forgotten)], WaveformBatchConfig(snippets=0.1), CPU)

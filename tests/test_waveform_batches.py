"""Batches made from waveforms are those of prepared features; what is done to waveforms is what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from asr.model.features import LogMel
from asr.training.augment import simulated_room
from asr.training.batches import Batch, BatchConfig, BatchSource
from asr.training.feature_augment import warp_frequencies
from asr.training.prepared import SAMPLES, UNLABELLED, WAVEFORMS, Alignments, Prepared
from asr.training.unlabelled import UnlabelledConfig, UnlabelledSource
from asr.training.waveform_augment import (
    Dice,
    Sounds,
    WaveformAugmentConfig,
    coloured_noise,
    in_rooms,
    over_telephones,
    read_at_speed,
    spec_augment,
    with_noise,
    with_other_tracts,
)
from asr.training.waveform_batches import WaveformBatchConfig, WaveformSource
from asr.training.waveform_pool import WaveformPool

CPU = torch.device("cpu")
AS_IT_IS = WaveformAugmentConfig(speed=(1, 1), room=0, noise=0, warp=0, narrow=0, gain_db=(0, 0))
PLAIN = WaveformBatchConfig(seconds=10, mels=(0, 0), times=(1000, 0), augment=AS_IT_IS)


def dice(rows: int, seed: int = 1) -> Dice:
    return Dice(torch.Generator().manual_seed(seed), rows)


def voice(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Smooth noise: nothing near the highest frequency."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum[len(spectrum) // 2 :] = 0
    sound = np.fft.irfft(spectrum, samples)
    return (sound / np.abs(sound).max() / 2).astype(np.float32)


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Prepared, Alignments]:
    """Twelve utterances of 0.8 to 2.5 s with features, waveforms and random labels."""
    rng = np.random.default_rng(1)
    rows = ["id\tset\tspeaker\ttext\t1.00\tsamples"]
    features, waveforms, phones, frames, samples = [], [], [], 0, 0
    for i in range(12):
        waveform = (voice(rng, int(rng.integers(12_800, 40_000))) * 32_767).round().astype(np.int16)
        mel, _ = LogMel()(
            torch.from_numpy(waveform / np.float32(32_768))[None], torch.tensor([len(waveform)])
        )
        features.append(mel[0].numpy().astype(np.float16))
        waveforms.append(waveform)
        phones.append(rng.integers(1, 47, 6).astype(np.int16))
        spans = f"{frames}:{frames + mel.shape[1]}\t{samples}:{samples + len(waveform)}"
        rows.append(f"u{i}\tset\tspeaker\tTEXT\t{spans}")
        frames, samples = frames + mel.shape[1], samples + len(waveform)
    (tmp_path / "utterances.tsv").write_text("\n".join(rows) + "\n")
    (tmp_path / "features-1.00.raw").write_bytes(np.concatenate(features).tobytes())
    (tmp_path / WAVEFORMS).write_bytes(np.concatenate(waveforms).tobytes())
    # Three states of three frames for each phone, over and over.
    classes = (3 * (np.arange(frames) // 9 % 46 + 1) + np.arange(frames) // 3 % 3).astype(np.uint8)
    alignments = Alignments(np.concatenate(phones), np.arange(13) * 6, classes)
    return Prepared.open(tmp_path), alignments


def by_targets(batches: list[Batch]) -> dict[tuple[int, ...], tuple[torch.Tensor, ...]]:
    found = {}
    for batch in batches:
        for row, length in enumerate(batch.lengths.tolist()):
            frames = -(-length // 3)
            labels = (of[row, :frames] for of in (batch.classes, batch.left, batch.right))
            found[tuple(batch.targets[row].tolist())] = (batch.features[row, :length], *labels)
    return found


def test_without_augmentation_a_batch_is_one_of_prepared_features(prepared) -> None:
    plain = BatchConfig(seconds=10, versions=(("1.00", 1.0),), mel_masks=0, time_every=1000, time_width=0)
    expected = by_targets(list(BatchSource(*prepared, plain).epoch(0)))
    source = WaveformSource([prepared], PLAIN, CPU)
    batches = list(source.epoch(0))
    found = by_targets(batches)
    assert found.keys() == expected.keys() and len(found) == 12
    for key, (features, *labels) in expected.items():
        # Features are prepared with 16 bits.
        torch.testing.assert_close(found[key][0], features, atol=0.03, rtol=0)
        for ours, theirs in zip(found[key][1:], labels, strict=True):
            assert torch.equal(ours, theirs)
    assert sum(batch.seconds for batch in batches) == pytest.approx(len(prepared[0].waveforms) / 16_000)
    assert source.usage() == "12 of 12 utterances"


def test_labels_follow_the_speed(prepared) -> None:
    config = replace(PLAIN, augment=replace(AS_IT_IS, speed=(1.1, 1.1)))
    fast = by_targets(list(WaveformSource([prepared], config, CPU).epoch(0)))
    slow = by_targets(list(WaveformSource([prepared], PLAIN, CPU).epoch(0)))
    for key, (_, classes, *_) in fast.items():
        original = slow[key][1]
        places = ((torch.arange(len(classes)) * 3 + 1) * 1.1 - 1) / 3
        nearest = original[places.round().long().clamp(max=len(original) - 1)]
        # The frame nearest to the middle may be the neighbour.
        assert (nearest - classes).abs().le(1).float().mean() > 0.9
        assert len(classes) == pytest.approx(len(original) / 1.1, abs=1.5)


@pytest.fixture
def noises(tmp_path: Path) -> Path:
    """A hum and a room with one echo."""
    folder = tmp_path / "noise"
    folder.mkdir()
    soundfile.write(folder / "hum.wav", np.sin(np.arange(4_000) / 5) / 10, 16_000)
    room = np.zeros(3_000)
    room[[100, 500]] = 1.0, 0.5
    soundfile.write(folder / "room.wav", room, 16_000)
    (folder / "noise.tsv").write_text("path\tkind\nhum.wav\tnoise\nroom.wav\troom\n")
    return folder


def test_an_epoch_depends_on_seed_and_number_alone(prepared, noises: Path) -> None:
    config = WaveformBatchConfig(seconds=6, noises=noises)
    first, again, other = (
        list(WaveformSource([prepared], config, CPU).epoch(number)) for number in (0, 0, 1)
    )
    assert len(first) > 2
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.features, b.features) and torch.equal(a.classes, b.classes)
    skipped = list(WaveformSource([prepared], config, CPU).epoch(0, skip=1))
    assert torch.equal(skipped[0].features, first[1].features)
    assert not any(torch.equal(a.features, b.features) for a in first for b in other)
    assert all(batch.features.isfinite().all() for batch in first)


def test_parts_stand_one_behind_the_other_and_the_first_comes_more_often(prepared) -> None:
    speech, alignments = prepared
    turned = replace(alignments, phones=np.ascontiguousarray(alignments.phones[::-1]))
    unlabelled = replace(turned, classes=np.full_like(turned.classes, UNLABELLED))
    source = WaveformSource([prepared, (speech, unlabelled)], replace(PLAIN, first_times=2), CPU)
    batches = list(source.epoch(0))
    assert sum(len(batch.features) for batch in batches) == 36
    found, alone = by_targets(batches), by_targets(list(WaveformSource([prepared], PLAIN, CPU).epoch(0)))
    assert len(found) == 24
    for i in range(12):
        first, second = tuple(alignments.targets(i).tolist()), tuple(turned.targets(i).tolist())
        torch.testing.assert_close(found[first][0], alone[first][0], atol=0.02, rtol=0)
        torch.testing.assert_close(found[second][0], alone[first][0], atol=0.02, rtol=0)
        assert torch.equal(found[first][2], alone[first][2])
        assert all((labels == -1).all() for labels in found[second][1:])


def test_errors(prepared) -> None:
    speech, alignments = prepared
    with pytest.raises(ValueError, match="no waveforms: prepare the speech"):
        WaveformSource([(replace(speech, waveforms=None), alignments)], PLAIN, CPU)
    with pytest.raises(ValueError, match="the alignments were made from other features"):
        WaveformSource([(speech, replace(alignments, offsets=alignments.offsets[:-1]))], PLAIN, CPU)
    with pytest.raises(ValueError, match="no utterance is aligned"):
        WaveformSource([(speech, replace(alignments, offsets=alignments.offsets * 0))], PLAIN, CPU)
    assert speech.utterances[0].samples is not None and SAMPLES not in speech.utterances[0].spans


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1])
def test_speed_is_that_of_a_resampler(speed: float) -> None:
    rng = np.random.default_rng(2)
    waveforms = [voice(rng, n) for n in (8_000, 12_000)]
    pool = torch.from_numpy((np.concatenate(waveforms) * 32_767).round().astype(np.int16))
    starts, lengths = torch.tensor([0, 8_000]), torch.tensor([8_000, 12_000])
    played, now = read_at_speed(pool, starts, lengths, torch.full((2,), speed))
    for row, (waveform, length) in enumerate(zip(waveforms, now.tolist(), strict=True)):
        expected = soxr.resample(waveform, round(16_000 * speed), 16_000, "VHQ")
        assert length == pytest.approx(len(expected), abs=1)
        ours = played[row, 200 : length - 200].numpy()
        error = ours - expected[200 : 200 + len(ours)]
        assert np.square(error).mean() < 1e-3 * np.square(ours).mean()
        assert (played[row, length:] == 0).all()


def test_silence_around_speech_is_played_at_its_speed_too() -> None:
    waveform = voice(np.random.default_rng(3), 8_000)
    pool = torch.from_numpy((waveform * 32_767).round().astype(np.int16))
    where, speed = (torch.tensor([0]), torch.tensor([8_000])), torch.tensor([1.1], dtype=torch.float64)
    alone, length = read_at_speed(pool, *where, speed)
    amid, total = read_at_speed(pool, *where, speed, torch.tensor([1_760]), torch.tensor([880]))
    assert int(total) == int((1_760 + 8_000 + 880) / 1.1)
    # 1,760 samples last for 1,600; the taps of the interpolation reach eight beyond.
    assert (amid[0, :1_590] == 0).all() and (amid[0, 1_610 + int(length) :] == 0).all()
    torch.testing.assert_close(amid[0, 1_600 : 1_600 + int(length)], alone[0], rtol=0, atol=1e-5)


def test_a_long_utterance_is_as_exact_as_a_short_one() -> None:
    tone = np.sin(2 * np.pi * 1_000 / 16_000 * np.arange(320_000)) * 16_000
    pool = torch.from_numpy(tone.astype(np.int16))
    played, now = read_at_speed(
        pool, torch.tensor([0]), torch.tensor([320_000]), torch.tensor([0.937], dtype=torch.float64)
    )
    places = np.arange(int(now)) * 0.937
    expected = np.sin(2 * np.pi * 1_000 / 16_000 * places) * 16_000 / 32_768
    error = (played[0].numpy() - expected)[-2_000:-100]
    assert np.square(error).mean() < 1e-6 * np.square(expected).mean()


def test_nothing_is_folded_back() -> None:
    """A tone of 7.8 kHz, played faster, would be above the highest frequency."""
    tone = np.sin(2 * np.pi * 7_800 / 16_000 * np.arange(16_000)) * 16_000
    pool = torch.from_numpy(tone.astype(np.int16))
    played, _ = read_at_speed(pool, torch.tensor([0]), torch.tensor([16_000]), torch.tensor([1.12]))
    assert played[0, 500:-500].square().mean() < 0.05 * (16_000 / 32_768) ** 2 / 2


def test_rooms() -> None:
    sounds = Sounds(torch.zeros(0), torch.zeros(0, 9_600))
    waveforms = torch.from_numpy(np.stack([voice(np.random.default_rng(i), 16_000) for i in range(40)]))
    assert torch.allclose(in_rooms(waveforms, sounds, 0.0, dice(40)), waveforms, atol=1e-5)
    heard = in_rooms(waveforms, sounds, 1.0, dice(40))
    tails = (heard - waveforms).square().mean(1) / waveforms.square().mean(1)
    # Direct to reverberant 0 to 15 dB, as of the rooms made one by one.
    assert tails.min() > 0.01 and tails.max() < 1.6
    one_by_one = [simulated_room(np.random.default_rng(i)) for i in range(200)]
    energies = [np.square(room[1:]).sum() for room in one_by_one]
    assert tails.mean().item() == pytest.approx(np.mean(energies), rel=0.35)
    impulse = torch.zeros(40, 16_000)
    impulse[:, 0] = 1
    decay = in_rooms(impulse, sounds, 1.0, dice(40)).square()
    assert (decay[:, 100:2_000].sum(1) > decay[:, 4_000:5_900].sum(1)).all()
    measured = torch.zeros(1, 9_600)
    measured[0, 800] = 1
    heard = in_rooms(waveforms, Sounds(torch.zeros(0), measured), 1.0, dice(40))
    late = [torch.allclose(heard[i, 800:], waveforms[i, :-800], atol=1e-5) for i in range(40)]
    assert 2 <= sum(late) <= 16


def test_noise_has_the_ratio_asked_for_and_stays_within_the_utterance() -> None:
    config = replace(AS_IT_IS, noise=1.0, snr_db=(10, 10))
    waveforms = torch.from_numpy(np.stack([voice(np.random.default_rng(i), 16_000) for i in range(30)]))
    lengths = torch.arange(30) * 100 + 12_000
    waveforms[torch.arange(16_000) >= lengths[:, None]] = 0
    sounds = Sounds(torch.randn(5_000, generator=torch.Generator().manual_seed(1)), torch.zeros(0, 9_600))
    mixed = with_noise(waveforms, lengths, lengths, torch.randn(30, 16_000), sounds, config, dice(30))
    for row, length in enumerate(lengths.tolist()):
        noise = (mixed - waveforms)[row, :length]
        ratio = waveforms[row, :length].square().mean() / noise.square().mean()
        assert ratio.log10().item() == pytest.approx(1, abs=1e-3)
        assert (mixed[row, length:] == 0).all()
    # Of a word in silence the word counts: the noise is as much stronger.
    half = with_noise(waveforms, lengths, lengths / 2, torch.randn(30, 16_000), sounds, config, dice(30))
    louder = (half - waveforms).square().sum() / (mixed - waveforms).square().sum()
    assert louder.item() == pytest.approx(2, rel=0.1)
    silent = with_noise(waveforms, lengths, lengths, torch.randn(30, 16_000), sounds, AS_IT_IS, dice(30))
    assert torch.equal(silent, waveforms)


def test_coloured_noise_falls_with_the_frequency() -> None:
    spectrum = torch.fft.rfft(coloured_noise(16_000, dice(100))).abs().square()
    slopes = (spectrum[:, 300:600].mean(1) / spectrum[:, 3_000:6_000].mean(1)).log10()
    assert slopes.min() > -0.2 and 1.5 < slopes.max() < 2.2  # of a decade


def test_other_tracts_are_warped_as_one_by_one() -> None:
    features = torch.randn(6, 20, 80)
    config = replace(AS_IT_IS, warp=1.0)
    factors = Dice(torch.Generator().manual_seed(3), 6)
    factors.happens(1.0)
    expected = [
        warp_frequencies(x.numpy(), f)
        for x, f in zip(features, factors.uniform(*config.warp_range).tolist(), strict=True)
    ]
    warped = with_other_tracts(features, config, dice(6, 3))
    np.testing.assert_allclose(warped.numpy(), np.stack(expected), atol=2e-4)
    assert torch.allclose(with_other_tracts(features, AS_IT_IS, dice(6)), features, atol=1e-4)


def test_telephones_leave_the_band_alone() -> None:
    features = torch.randn(50, 30, 80)
    lengths = torch.full((50,), 30)
    assert torch.equal(over_telephones(features, lengths, AS_IT_IS, dice(50)), features)
    config = replace(AS_IT_IS, narrow=0.5)
    changed = (over_telephones(features, lengths, config, dice(50)) != features).all(1)  # (batch, mels)
    over = changed.any(1)
    assert 12 < over.sum() < 38
    # 350 to 3,300 Hz are bands 11 to 53, 4,000 Hz is band 60.
    assert not changed[:, 14:50].any() and changed[over][:, 62:].all()
    hiss = over_telephones(features, lengths, config, dice(50))[over][:, :, 62:]
    assert hiss.max() < features.mean() - 2


def test_masks() -> None:
    features = torch.ones(100, 300, 80)
    lengths = torch.arange(100) * 2 + 100
    masked = spec_augment(features, lengths, (2, 12), (50, 18), dice(100)) == 0
    bands, frames = masked.all(1), masked.all(2)
    assert torch.equal(masked, bands[:, None] | frames[..., None])
    assert bands.sum(1).max() <= 24 and 8 < bands.sum(1).float().mean() < 13
    assert not frames[torch.arange(300) >= lengths[:, None]].any()
    wide = frames.sum(1) / (lengths // 50)
    assert frames[lengths < 150].sum(1).max() <= 36 and 5 < wide.mean() < 9.5
    assert torch.equal(spec_augment(features, lengths, (0, 0), (1000, 0), dice(100)), features)


def test_noises_are_read(noises: Path) -> None:
    sounds = Sounds.read(noises, CPU)
    assert sounds.noise.square().mean().item() == pytest.approx(1, rel=1e-3)
    assert sounds.rooms.shape == (1, 9_600) and sounds.rooms[0, [0, 400]].tolist() == pytest.approx(
        [0.894, 0.447], abs=1e-3
    )
    assert Sounds.read(None, CPU).noise.shape == (0,)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "not there: name a folder"),
        ("kind\nnoise\n", r"noise\.tsv:2: wants path and kind of a recording"),
        ("path\tkind\nnone.wav\tnoise\n", r"noise\.tsv:2: wants path and kind of a recording"),
    ],
)
def test_noises_that_cannot_be_read(table: str | None, message: str, tmp_path: Path) -> None:
    if table is not None:
        (tmp_path / "noise.tsv").write_text(table)
    with pytest.raises(ValueError, match=message):
        Sounds.read(tmp_path, CPU)


def test_pretraining_cuts_the_features_and_not_the_samples(prepared) -> None:
    """Where an utterance is in the waveforms is no span of frames."""
    source = UnlabelledSource([prepared[0]], UnlabelledConfig(seconds=6, longest_s=5, shortest_s=0.5))
    assert sorted(len(source._frames(piece, "1.00")) for piece in source.pieces) == sorted(
        last - first for first, last in (u.spans["1.00"] for u in prepared[0].utterances)
    )


def test_recordings_are_found_in_their_files() -> None:
    files = [np.arange(10, dtype=np.int16), np.arange(100, 120, dtype=np.int16)]
    pool = WaveformPool(files, CPU)
    starts, lengths = torch.tensor([12, 2, 10, 0]), torch.tensor([18, 3, 1, 10])
    together, firsts = pool.holding(starts, lengths)
    on_gpu = pool._read_all(CPU)
    assert on_gpu.tolist() == np.concatenate(files).tolist()
    for start, first, length in zip(starts, firsts, lengths, strict=True):
        assert together[first : first + length].tolist() == on_gpu[start : start + length].tolist()
    assert len(together) == lengths.sum()

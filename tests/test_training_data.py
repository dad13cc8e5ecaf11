"""Prepared features, their labels and the batches made of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asr.model.features import NUM_MELS
from asr.training.batches import Batch, BatchConfig, BatchSource, neighbours
from asr.training.feature_augment import FeatureAugmentConfig
from asr.training.prepared import Alignments, Prepared

VERSIONS = {"1.00": 1.0, "0.90": 1 / 0.9, "1.10": 1 / 1.1}
# Without masks, so that features show what was taken.
PLAIN = BatchConfig(seconds=6.0, versions=(("1.00", 1.0),), mel_masks=0, time_width=0)


def write_prepared(folder: Path, num_utterances: int = 23) -> None:
    """Utterance i is phones 1 to 4 in turn, from phone 1 + i % 4 on; its features are its frames / 16."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(60, 150, num_utterances)
    ends = dict.fromkeys(VERSIONS, 0)
    features: dict[str, list[np.ndarray]] = {name: [] for name in VERSIONS}
    rows, phones, classes = [], [], []
    for i, length in enumerate(lengths):
        spans = []
        for name, stretch in VERSIONS.items():
            frames = round(length * stretch)
            features[name].append(np.tile(np.arange(frames)[:, None] / 16, (1, NUM_MELS)).astype(np.float16))
            spans.append(f"{ends[name]}:{ends[name] + frames}")
            ends[name] += frames
        rows.append("\t".join([f"u{i}", "set/train", f"speaker{i % 3}", "A TEXT", *spans]))
        count = 4
        phones.append([1 + (i + k) % 4 for k in range(count)])
        where = np.arange(length) * 3 * count // length
        classes.append([3 * phones[-1][w // 3] + w % 3 for w in where])
    (folder / "utterances.tsv").write_text(
        "\n".join(["\t".join(["id", "set", "speaker", "text", *VERSIONS]), *rows]) + "\n", encoding="utf-8"
    )
    for name, parts in features.items():
        np.concatenate(parts).tofile(folder / f"features-{name}.raw")
    offsets = np.cumsum([0, *map(len, phones)])
    alignments = Alignments(
        np.concatenate(phones).astype(np.int16), offsets, np.concatenate(classes).astype(np.uint8)
    )
    alignments.save(folder / "alignments.npz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write_prepared(folder)
    return folder


def source(folder: Path, config: BatchConfig) -> BatchSource:
    return BatchSource(Prepared.open(folder), Alignments.open(folder / "alignments.npz"), config)


def test_prepared_files_are_read_back(folder: Path) -> None:
    prepared = Prepared.open(folder)
    assert len(prepared.utterances) == 23
    assert prepared.utterances[4].speaker == "speaker1"
    assert (16 * prepared.frames(4)[:, 0]).tolist() == list(range(len(prepared.frames(4))))
    assert len(prepared.frames(4, "0.90")) > len(prepared.frames(4)) > len(prepared.frames(4, "1.10"))
    with pytest.raises(ValueError, match=r"run recipes/prepare\.py"):
        Prepared.open(folder / "elsewhere")


def test_an_epoch_has_every_utterance_once_in_batches_of_like_length(folder: Path) -> None:
    batches = list(source(folder, PLAIN).epoch(0))
    lengths = sorted(int(n) for batch in batches for n in batch.lengths)
    prepared = Prepared.open(folder)
    assert lengths == sorted(len(prepared.frames(i)) for i in range(23))
    for batch in batches:
        assert batch.features.shape[1] * len(batch.lengths) <= PLAIN.seconds * 100
        assert batch.seconds == pytest.approx(int(batch.lengths.sum()) / 100)
    assert sum(len(batch.lengths) for batch in batches) == 23


def test_epochs_differ_and_repeat(folder: Path) -> None:
    def shape(number: int, skip: int = 0) -> list[list[int]]:
        return [
            batch.lengths.tolist() for batch in source(folder, BatchConfig(seconds=6.0)).epoch(number, skip)
        ]

    assert shape(3) == shape(3)
    assert shape(3) != shape(4)
    assert shape(3)[2:] == shape(3, skip=2)


def test_a_resumed_epoch_has_the_same_features(folder: Path) -> None:
    noisy = FeatureAugmentConfig(warp_probability=0.5, noise_probability=0.5, narrow_probability=0.5)
    config = BatchConfig(seconds=6.0, augment=noisy)
    whole = list(source(folder, config).epoch(5))
    rest = list(source(folder, config).epoch(5, skip=1))
    for a, b in zip(whole[1:], rest, strict=True):
        assert (a.features == b.features).all() and (a.classes == b.classes).all()
        assert (a.targets == b.targets).all()
    plain = list(source(folder, BatchConfig(seconds=6.0)).epoch(5, skip=1))
    assert any((a.features != b.features).any() for a, b in zip(plain, rest, strict=True))


@pytest.mark.parametrize("version", list(VERSIONS))
def test_labels_are_where_the_sounds_are_at_every_speed(folder: Path, version: str) -> None:
    config = BatchConfig(seconds=6.0, versions=((version, 1.0),), mel_masks=0, time_width=0)
    for batch in source(folder, config).epoch(0):
        for row, length in enumerate(batch.lengths.tolist()):
            frames = -(-length // config.stride)
            classes = batch.classes[row]
            assert (classes[frames:] == -1).all()
            phones = [int(p) for p in batch.targets[row, : batch.target_lengths[row]]]
            expected = [3 * phones[w // 3] + w % 3 for w in np.arange(frames) * 3 * len(phones) // frames]
            # At the border of two states a frame may go to either.
            for t, found in enumerate(classes[:frames].tolist()):
                assert found in expected[max(0, t - 1) : t + 2]
            middle = frames // len(phones) + frames // (2 * len(phones))  # inside the second phone
            assert batch.left[row, middle] == phones[0]
            assert batch.right[row, middle] == phones[2]


def test_masks_hide_bands_and_stretches_of_time(folder: Path) -> None:
    plain = next(iter(source(folder, PLAIN).epoch(0)))
    masked = next(iter(source(folder, BatchConfig(seconds=6.0, versions=(("1.00", 1.0),))).epoch(0)))
    hidden = (plain.features != 0) & (masked.features == 0)
    assert 0.01 < hidden.float().mean() < 0.5
    changed = (plain.features != masked.features) & (masked.features != 0)
    assert not changed.any()
    hidden_bands = hidden_frames = 0
    for row, length in enumerate(plain.lengths.tolist()):
        seen = masked.features[row, :length] != 0
        bands = int((~seen.any(0)).sum())  # hidden all the time
        frames = int((hidden[row, :length].any(1) & ~seen.any(1)).sum())  # nothing is heard in them
        assert bands <= 2 * 12 and frames <= 18
        hidden_bands, hidden_frames = hidden_bands + bands, hidden_frames + frames
    assert hidden_bands > 0 and hidden_frames > 0


def test_too_short_and_unaligned_utterances_are_left_out(tmp_path: Path) -> None:
    write_prepared(tmp_path, 5)
    alignments = Alignments.open(tmp_path / "alignments.npz")
    # 40 phones cannot be in utterance 0, nothing was aligned in utterance 1.
    phones = np.concatenate([np.ones(40, np.int16), alignments.phones[8:]])
    offsets = np.array([0, 40, 40, 44, 48, 52])
    kept = BatchSource(Prepared.open(tmp_path), Alignments(phones, offsets, alignments.classes), PLAIN)
    assert kept.usable.tolist() == [2, 3, 4]


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    write_prepared(tmp_path, 5)
    prepared, alignments = Prepared.open(tmp_path), Alignments.open(tmp_path / "alignments.npz")
    assert BatchSource(prepared, alignments, PLAIN).usage() == "5 of 5 utterances"
    # Utterance 0 is the longest; nothing was aligned in utterance 1, 40 phones cannot be in utterance 4.
    phones = np.concatenate([alignments.phones[:4], alignments.phones[8:16], np.ones(40, np.int16)])
    other = replace(alignments, phones=phones, offsets=np.array([0, 4, 4, 8, 12, 52]))
    config = replace(PLAIN, longest_s=1.2)
    assert [len(prepared.frames(i)) > 120 for i in range(5)] == [True, False, False, False, False]
    kept = BatchSource(prepared, other, config)
    assert kept.usable.tolist() == [2, 3]
    assert kept.usage() == "2 of 5 utterances (1 not aligned, 1 over 1.2 s, 1 too short for their phones)"
    nothing = r"no utterance .*: 0 of 5 utterances \(0 not aligned, 5 over 0\.1 s, 0 too short"
    with pytest.raises(ValueError, match=nothing):
        BatchSource(prepared, alignments, replace(PLAIN, longest_s=0.1))


def test_alignments_of_other_texts_are_refused(tmp_path: Path) -> None:
    write_prepared(tmp_path, 5)
    before = Prepared.open(tmp_path)
    aligned = Alignments.open(tmp_path / "alignments.npz")
    assert aligned.digest == ""  # as in files of earlier versions: nothing to compare
    replace(aligned, digest=before.digest()).save(tmp_path / "alignments.npz")
    aligned = Alignments.open(tmp_path / "alignments.npz")
    assert len(BatchSource(before, aligned, PLAIN).usable) == 5

    table = tmp_path / "utterances.tsv"
    table.write_text(table.read_text(encoding="utf-8").replace("A TEXT", "ANOTHER", 1), encoding="utf-8")
    with pytest.raises(ValueError, match=r"other texts: run recipes/align\.py again"):
        BatchSource(Prepared.open(tmp_path), aligned, PLAIN)


def test_alignments_without_a_digest_are_read(tmp_path: Path) -> None:
    write_prepared(tmp_path, 5)
    aligned = Alignments.open(tmp_path / "alignments.npz")
    old = tmp_path / "old.npz"
    np.savez(old, phones=aligned.phones, offsets=aligned.offsets, classes=aligned.classes)
    assert Alignments.open(old).digest == ""
    assert len(BatchSource(Prepared.open(tmp_path), Alignments.open(old), PLAIN).usable) == 5


def test_alignments_of_other_features_are_refused(folder: Path, tmp_path: Path) -> None:
    write_prepared(tmp_path, 5)
    with pytest.raises(ValueError, match=r"run recipes/align\.py again"):
        BatchSource(Prepared.open(folder), Alignments.open(tmp_path / "alignments.npz"), PLAIN)
    with pytest.raises(ValueError, match=r"run recipes/align\.py --prepared"):
        Alignments.open(tmp_path / "elsewhere.npz")


def test_nothing_to_train_on_is_an_error(folder: Path) -> None:
    aligned = Alignments.open(folder / "alignments.npz")
    nothing = Alignments(np.zeros(0, np.int16), np.zeros_like(aligned.offsets), aligned.classes)
    with pytest.raises(ValueError, match="no utterance is aligned"):
        BatchSource(Prepared.open(folder), nothing, PLAIN)


def test_versions_that_were_not_prepared(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"2\.00.*was prepared"):
        source(folder, BatchConfig(versions=(("2.00", 1.0),)))


def test_neighbours_stay_inside_their_utterance() -> None:
    # Phones 1 2 2 | 3: the second 2 begins anew with state 0.
    classes = np.array([3, 4, 5, 6, 7, 8, 6, 8, 9, 10], np.uint8)
    before, after = neighbours(classes, np.array([0, 8, 10]))
    assert before.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 0, 0]
    assert after.tolist() == [2, 2, 2, 2, 2, 2, 0, 0, 0, 0]


def test_copies_are_alike_but_for_their_masks(folder: Path) -> None:
    config = BatchConfig(seconds=12.0, versions=(("1.00", 1.0),), copies=2)
    plain = {tuple(b.lengths.tolist()): b for b in source(folder, PLAIN).epoch(0)}
    for batch in source(folder, config).epoch(0):
        num = len(batch.lengths) // 2
        assert batch.features.shape[1] * len(batch.lengths) <= config.seconds * 100  # both copies count
        assert batch.seconds == pytest.approx(int(batch.lengths.sum()) / 100)
        for value in (batch.lengths, batch.targets, batch.target_lengths, batch.classes, batch.left):
            assert (value[:num] == value[num:]).all()
        first, second = batch.features[:num], batch.features[num:]
        assert ((first != second).flatten(1).any(1)).all()
        seen = (first != 0) & (second != 0)
        assert (first[seen] == second[seen]).all()
        whole = plain[tuple(batch.lengths[:num].tolist())]
        assert (whole.features[seen] == first[seen]).all() and (whole.targets == batch.targets[:num]).all()


def test_more_masks_in_time(folder: Path) -> None:
    def hidden(time_every: int) -> float:
        config = BatchConfig(
            seconds=6.0, versions=(("1.00", 1.0),), mel_masks=0, time_every=time_every, time_width=10
        )
        frames = [batch.features.abs().sum(2) == 0 for batch in source(folder, config).epoch(0)]
        return float(sum(f.sum() for f in frames))

    assert hidden(20) > 2 * hidden(60)


PAUSE = 15  # frames


def gliding(length: int) -> np.ndarray:
    """(frames, mels): a pause, then a tone that goes up and down, louder and softer."""
    frame, band = np.arange(length)[:, None], np.arange(NUM_MELS)
    tone = 6 * np.exp(-((band - 40 - 12 * np.sin(frame / 5)) ** 2) / 18) + 4 * np.sin(frame / 2)
    return np.where(frame < PAUSE, -8, tone).astype(np.float16)


def with_and_without(folder: Path, augment: FeatureAugmentConfig) -> tuple[Batch, Batch]:
    """The same batch, not augmented and augmented."""
    write_prepared(folder, 5)
    prepared = Prepared.open(folder)
    features = np.concatenate([gliding(len(prepared.frames(i))) for i in range(5)])
    prepared = replace(prepared, features={"1.00": features})
    alignments = Alignments.open(folder / "alignments.npz")
    plain, augmented = (
        next(BatchSource(prepared, alignments, config).epoch(0))
        for config in (PLAIN, replace(PLAIN, augment=augment))
    )
    assert (plain.lengths == augmented.lengths).all() and (plain.targets == augmented.targets).all()
    return plain, augmented


def higher(plain: Batch, augmented: Batch) -> float:
    """Bands by which the tone is higher in the augmented batch."""
    shortest = int(plain.lengths.min())
    before, after = (batch.features[:, PAUSE:shortest].argmax(2) for batch in (plain, augmented))
    return float((after - before).median())


def pause(batch: Batch) -> float:
    """How unsteady the pause is, in the middle of any telephone's band."""
    return float(batch.features[:, :PAUSE, 30:45].std(1).mean())


def top(batch: Batch) -> float:
    """How the highest bands vary in time, as a share of what the middle ones do."""
    shortest = int(batch.lengths.min())
    spread = batch.features[:, :shortest].std(1)
    return float(spread[:, -10:].mean() / spread[:, 30:45].mean())


def test_warped_utterances_are_higher(tmp_path: Path) -> None:
    augment = FeatureAugmentConfig(warp_probability=1.0, warp=(1.12, 1.12))
    plain, warped = with_and_without(tmp_path, augment)
    assert 1 <= higher(plain, warped) <= 5
    assert pause(warped) < 1e-3 and top(warped) == pytest.approx(top(plain), rel=0.2)


def test_noise_fills_the_pauses(tmp_path: Path) -> None:
    plain, noisy = with_and_without(tmp_path, FeatureAugmentConfig(noise_probability=1.0))
    assert pause(plain) < 1e-3 and pause(noisy) > 0.05
    assert higher(plain, noisy) == 0


def test_narrow_bands_silence_the_highest_mels(tmp_path: Path) -> None:
    plain, narrow = with_and_without(tmp_path, FeatureAugmentConfig(narrow_probability=1.0))
    assert top(narrow) < 0.5 * top(plain)
    assert pause(narrow) < 1e-3 and higher(plain, narrow) == 0

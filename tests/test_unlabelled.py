"""Speech without labels: every recording once an epoch, long ones in pieces."""

from pathlib import Path

import numpy as np
import pytest
import torch

from asr.model.features import NUM_MELS, normalize_features
from asr.training.prepared import Prepared
from asr.training.unlabelled import UnlabelledConfig, UnlabelledSource

CONFIG = UnlabelledConfig(seconds=6.0, longest_s=2.0, shortest_s=0.5)


def write_unlabelled(folder: Path, lengths: list[int], versions: tuple[str, ...] = ("1.00",)) -> None:
    """As recipes/prepare.py writes recordings without text: random frames, others in each version,
    which change every 400 ms."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(len(lengths))
    rows: list[list[str]] = [[f"u{i}", "set/unlabelled", "", ""] for i in range(len(lengths))]
    for version in versions:
        end, parts = 0, []
        for row, length in zip(rows, lengths, strict=True):
            sounds = rng.normal(size=(-(-length // 40), NUM_MELS))
            parts.append(np.repeat(sounds, 40, 0)[:length])
            row.append(f"{end}:{end + length}")
            end += length
        np.concatenate(parts).astype(np.float16).tofile(folder / f"features-{version}.raw")
    header = ["id", "set", "speaker", "text", *versions]
    lines = ["\t".join(fields) for fields in [header, *rows]]
    (folder / "utterances.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> UnlabelledSource:
    folder = tmp_path_factory.mktemp("unlabelled")
    write_unlabelled(folder / "a", [120, 30, 450, 90, 200])
    write_unlabelled(folder / "b", [70, 80], ("1.00", "0.90"))
    return UnlabelledSource([Prepared.open(folder / "a"), Prepared.open(folder / "b")], CONFIG)


def test_every_recording_comes_once_long_ones_in_equal_pieces(source: UnlabelledSource) -> None:
    batches = list(source.epoch(0))
    lengths = sorted(int(n) for batch in batches for n in batch.lengths)
    # 450 is cut in three; 30 frames are too short.
    assert lengths == sorted([120, 150, 150, 150, 90, 200, 70, 80])
    assert sum(batch.seconds for batch in batches) == pytest.approx(sum(lengths) / 100)
    assert source.hours == pytest.approx((120 + 30 + 450 + 90 + 200 + 70 + 80) / 100 / 3600)
    for batch in batches:
        assert batch.features.shape == (len(batch.lengths), int(batch.lengths.max()), NUM_MELS)
        assert batch.features.shape[0] * batch.features.shape[1] <= CONFIG.seconds * 100


def test_pieces_are_the_recording(source: UnlabelledSource) -> None:
    whole = source.folders[0].frames(2).astype(np.float32)
    pieces = [piece for piece in source.pieces if (piece.folder, piece.utterance) == (0, 2)]
    joined = np.concatenate([source._frames(piece, "1.00") for piece in pieces])
    assert (joined == whole).all()


def test_features_are_normalised_and_zero_beyond_the_end(source: UnlabelledSource) -> None:
    for batch in source.epoch(0):
        for row, length in zip(batch.features, batch.lengths.tolist(), strict=True):
            torch.testing.assert_close(row[:length].mean(0), torch.zeros(NUM_MELS), atol=1e-3, rtol=0)
            assert row[:length].square().mean().item() == pytest.approx(1, abs=0.01)
            assert not row[length:].any()


def test_epochs_differ_and_repeat_and_go_on(source: UnlabelledSource) -> None:
    def sums(number: int, skip: int = 0) -> list[float]:
        return [float(batch.features.abs().sum()) for batch in source.epoch(number, skip)]

    assert sums(3) == sums(3)
    assert sums(3) != sums(4)
    assert sums(3)[2:] == sums(3, skip=2)


def test_all_versions_are_heard(source: UnlabelledSource) -> None:
    frames = [source.folders[1].frames(1, version).astype(np.float32) for version in ("1.00", "0.90")]
    versions = [normalize_features(torch.from_numpy(f)[None], torch.tensor([80]))[0] for f in frames]
    found = set()
    for number in range(20):
        for batch in source.epoch(number):
            for row in batch.features[batch.lengths == 80]:
                found |= {i for i, version in enumerate(versions) if torch.allclose(row[:80], version)}
    assert found == {0, 1}


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    write_unlabelled(tmp_path, [10, 20])
    with pytest.raises(ValueError, match="no recording of 1 s or longer"):
        UnlabelledSource([Prepared.open(tmp_path)], UnlabelledConfig())

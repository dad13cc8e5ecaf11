"""Log-mel features: the encoder's input."""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor, nn

SAMPLE_RATE = 16_000
HOP_LENGTH = 160  # 10 ms
FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH  # 100
WINDOW_LENGTH = 400  # 25 ms
NUM_MELS = 80
# Power below which a mel band counts as silent: some 90 dB under a full-scale sine.
FLOOR = 1e-7


class LogMel(nn.Module):
    """Waveform to log-mel energies, 100 frames a second.

    The frame i is centred on sample 160 i; outside of the waveform is silence, so that an utterance gets the
    same features alone and in a padded batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mel = torchaudio.transforms.MelSpectrogram(
            sample_rate=SAMPLE_RATE, n_fft=512, win_length=WINDOW_LENGTH, hop_length=HOP_LENGTH,
            f_min=20.0, f_max=7_800.0, n_mels=NUM_MELS, pad_mode="constant",
        )  # fmt: skip

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, samples) float32 in [-1, 1] and (batch,) -> (batch, frames, mels) float32, (batch,)."""
        features = self.mel(waveform).clamp_min(FLOOR).log().transpose(1, 2)
        return features, num_frames(lengths)


def num_frames(num_samples: Tensor) -> Tensor:
    """Log-mel frames of a waveform of that many samples."""
    return torch.div(num_samples, HOP_LENGTH, rounding_mode="floor") + 1


def normalize_features(features: Tensor, lengths: Tensor) -> Tensor:
    """Subtract each utterance's mean of each mel band, divide by its deviation over all bands; padding is 0.

    (batch, frames, mels), (batch,) -> (batch, frames, mels). Takes level and microphone out of the features.
    """
    mask = (torch.arange(features.shape[1], device=features.device) < lengths[:, None]).unsqueeze(-1)
    count = lengths.clamp_min(1).view(-1, 1, 1).to(features.dtype)
    mean = (features * mask).sum(1, keepdim=True) / count
    centred = (features - mean) * mask
    variance = centred.square().sum((1, 2), keepdim=True) / (count * features.shape[2])
    return centred / (variance + 1e-3).sqrt()

"""Kokoro-82M's vocoder, an ISTFTNet (https://arxiv.org/abs/2203.02395), and the blocks it is made of.

Batch size 1 throughout: that makes an instance norm a batch norm. As in the published ONNX file, and other
than in the original, the excitation has no noise and no random phases, and the waveform is 1.5 times as loud.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SAMPLE_RATE = 24_000
STYLE = 128
_FRAME = 300  # samples a frame of pitch and energy; the text has frames of twice that
_HOP, _FFT = 5, 20  # of the short-time spectra, in samples
_HARMONICS = 9
_VOICED = 10.0  # Hz; below is unvoiced


def repeat(x: Tensor, times: int) -> Tensor:
    """Each frame of (1, channel, time) `times` times; unlike repeat_interleave it never waits for the GPU."""
    return x[..., None].expand(*x.shape, times).flatten(2)


class StyledNorm(nn.Module):
    """Instance norm of (1, channel, time) with a gain and a shift from the style (AdaIN)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(STYLE, 2 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        gain, shift = self.fc(style).flatten().chunk(2)
        return F.batch_norm(x, None, None, 1 + gain, shift, training=True, eps=1e-5)


class Block(nn.Module):
    """Residual block of two convolutions; `upsample` doubles the frames."""

    def __init__(self, inputs: int, outputs: int, upsample: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = StyledNorm(inputs), StyledNorm(outputs)
        self.conv1 = nn.Conv1d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv1d(outputs, outputs, 3, padding=1)
        self.conv1x1 = nn.Conv1d(inputs, outputs, 1, bias=False) if inputs != outputs else None
        self.pool = (
            nn.ConvTranspose1d(inputs, inputs, 3, 2, padding=1, output_padding=1, groups=inputs)
            if upsample
            else None
        )

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        y = F.leaky_relu(self.norm1(x, style), 0.2)
        if self.pool is not None:
            x, y = repeat(x, 2), self.pool(y)
        y = self.conv2(F.leaky_relu(self.norm2(self.conv1(y), style), 0.2))
        x = x if self.conv1x1 is None else self.conv1x1(x)
        return (x + y) * math.sqrt(0.5)


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = Block(514, 1024)
        self.decode = nn.ModuleList([*(Block(1090, 1024) for _ in range(3)), Block(1090, 512, upsample=True)])
        self.F0_conv, self.N_conv = (nn.Conv1d(1, 1, 3, 2, padding=1) for _ in range(2))
        self.asr_res = nn.Sequential(nn.Conv1d(512, 64, 1))
        self.generator = Generator()

    def cast(self, dtype: torch.dtype) -> None:
        """Compute in `dtype`, all but what must be precise: pitch, excitation and spectra."""
        generator = self.generator
        vocoder = (generator.noise_convs, generator.noise_res, generator.ups, generator.resblocks)
        for module in (self.encode, self.decode, self.asr_res, *vocoder, generator.conv_post):
            module.to(dtype)

    def forward(self, text: Tensor, pitch: Tensor, energy: Tensor, style: Tensor) -> Tensor:
        """Float32 waveform (samples,) of `text` (1, 512, t), `pitch` and `energy` (1, 1, 2 t)."""
        dtype = self.encode.conv1.weight.dtype
        curves = torch.cat((self.F0_conv(pitch), self.N_conv(energy)), 1).to(dtype)
        text, style = text.to(dtype), style.to(dtype)
        x = self.encode(torch.cat((text, curves), 1), style)
        beside = torch.cat((self.asr_res(text), curves), 1)
        for block in self.decode:
            x = block(torch.cat((x, beside), 1), style)
        return self.generator(x, style, pitch)


class SnakeBlock(nn.Module):
    """Three pairs of convolutions with snake activations x + sin(a x)^2 / a."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()

        def convolutions(dilations: tuple[int, ...]) -> nn.ModuleList:
            return nn.ModuleList(
                nn.Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2 * d, dilation=d)
                for d in dilations
            )

        def slopes() -> nn.ParameterList:
            return nn.ParameterList(torch.ones(1, channels, 1) for _ in range(3))

        self.convs1, self.convs2 = convolutions((1, 3, 5)), convolutions((1, 1, 1))
        self.adain1, self.adain2 = (nn.ModuleList(StyledNorm(channels) for _ in range(3)) for _ in range(2))
        self.alpha1, self.alpha2 = slopes(), slopes()

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        for i in range(3):
            y = self.convs1[i](snake(self.adain1[i](x, style), self.alpha1[i]))
            x = x + self.convs2[i](snake(self.adain2[i](y, style), self.alpha2[i]))
        return x


def snake(x: Tensor, a: Tensor) -> Tensor:
    """In place: `x` is overwritten."""
    wave = (x * a).sin_()
    return x.addcmul_(wave / a, wave)


class Generator(nn.Module):
    """The vocoder: 512 channels at 80 frames a second to a short-time spectrum, and that to a waveform."""

    window: Tensor
    basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.m_source = nn.ModuleDict({"l_linear": nn.Linear(_HARMONICS, 1)})
        self.noise_convs = nn.ModuleList((nn.Conv1d(22, 256, 12, 6, padding=3), nn.Conv1d(22, 128, 1)))
        self.noise_res = nn.ModuleList((SnakeBlock(256, 7), SnakeBlock(128, 11)))
        self.ups = nn.ModuleList(
            (nn.ConvTranspose1d(512, 256, 20, 10, padding=5), nn.ConvTranspose1d(256, 128, 12, 6, padding=3))
        )
        self.resblocks = nn.ModuleList(SnakeBlock(c, kernel) for c in (256, 128) for kernel in (3, 7, 11))
        self.conv_post = nn.Conv1d(128, _FFT + 2, 7, padding=3)
        self.register_buffer("window", torch.hann_window(_FFT), persistent=False)
        self.register_buffer("basis", inverse_basis(self.window), persistent=False)

    def forward(self, x: Tensor, style: Tensor, pitch: Tensor) -> Tensor:
        """`x` (1, 512, t) and `pitch` (1, 1, t) in Hz to (300 t,) samples."""
        source = self.spectrum(self.excitation(pitch)).to(x.dtype)
        for i in range(2):
            x = self.ups[i](F.leaky_relu(x, 0.1))
            if i:
                x = F.pad(x, (1, 0), mode="reflect")
            x = x + self.noise_res[i](self.noise_convs[i](source), style)
            x = sum(block(x, style) for block in self.resblocks[3 * i : 3 * i + 3]) / 3
        return self.waveform(self.conv_post(F.leaky_relu(x, 0.01)).float())

    def excitation(self, pitch: Tensor) -> Tensor:
        """A weighted sum of the harmonics where it is voiced: (1, 300 t)."""
        harmonics = torch.arange(1.0, _HARMONICS + 1, device=pitch.device)[:, None]
        turns = (pitch * harmonics / SAMPLE_RATE) % 1
        phase = F.interpolate(turns.cumsum(2) * (2 * math.pi * _FRAME), scale_factor=_FRAME, mode="linear")
        sines = 0.1 * phase.sin() * repeat((pitch > _VOICED).float(), _FRAME)
        return self.m_source["l_linear"](sines.mT).squeeze(2).tanh()

    def spectrum(self, waveform: Tensor) -> Tensor:
        """Magnitudes and angles (1, 22, frames)."""
        bins = torch.stft(waveform, _FFT, _HOP, window=self.window, return_complex=True)
        return torch.cat((bins.abs(), bins.angle()), 1)

    def waveform(self, x: Tensor) -> Tensor:
        """(samples,) of (1, 22, frames): the logarithms of magnitudes, and what has angles as its sines."""
        magnitude, angle = x.split(_FFT // 2 + 1, 1)
        magnitude, angle = magnitude.exp(), angle.sin()
        bins = torch.cat((magnitude * angle.cos(), magnitude * angle.sin()), 1)
        overlapped = F.conv_transpose1d(bins, self.basis, stride=_HOP)
        return overlapped[0, 0, _FFT // 2 : -(_FFT // 2)]


def inverse_basis(window: Tensor) -> Tensor:
    """Windowed waveforms (22, 1, 20) of the real and the imaginary parts of a spectrum.

    torch.istft would do the same but for a division by the overlapped windows, which sum to 1.5; and it waits
    for the GPU to check them.
    """
    angles = 2 * math.pi / _FFT * torch.arange(_FFT // 2 + 1)[:, None] * torch.arange(_FFT)
    twice = torch.full((_FFT // 2 + 1, 1), 2.0)  # for the negative frequencies
    twice[0] = twice[-1] = 1.0
    return torch.cat((twice * angles.cos(), -twice * angles.sin()))[:, None] * window / _FFT

"""Kokoro-82M's network in torch: StyleTTS 2 (https://arxiv.org/abs/2306.07691) with an ISTFTNet vocoder.

The parts have the names of the published weights (https://huggingface.co/hexgrad/Kokoro-82M, Apache-2.0). All
of it works on one utterance at a time, batch size 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.training.kokoro_vocoder import STYLE, Block, Decoder

_SYMBOLS = 178


class KokoroModel(nn.Module):
    """`multiple`: the silence at the end grows until the frames (25 ms) are a multiple of it.

    A GPU plans each convolution anew for each length it has not met, so fewer lengths are faster.
    """

    def __init__(self, multiple: int = 1) -> None:
        super().__init__()
        self.multiple = multiple
        self.bert = Albert()
        self.bert_encoder = nn.Linear(768, 512)
        self.text_encoder = TextEncoder()
        self.predictor = Predictor()
        self.decoder = Decoder()

    @torch.inference_mode()
    def forward(self, tokens: Tensor, style: Tensor, speed: float = 1.0) -> Tensor:
        """Float32 waveform (samples,), 24 kHz, of `tokens` (1, n) int64 in a `style` (1, 2 * STYLE).

        All three on the model's device; the only wait for a GPU is for the durations.
        """
        timbre, prosody = style.split(STYLE, 1)
        encoded = self.predictor.text_encoder(self.bert_encoder(self.bert(tokens)), prosody)
        durations = self.predictor.durations(encoded, speed)
        frames = spread(durations, self.multiple)
        pitch, energy = self.predictor.curves(encoded[:, frames], prosody)
        return self.decoder(self.text_encoder(tokens)[:, :, frames], pitch, energy, timbre)


def spread(durations: Tensor, multiple: int = 1) -> Tensor:
    """For each frame, the index of its token; the last one fills up to a `multiple` of frames.

    >>> spread(torch.tensor([2, 1]), 4)
    tensor([0, 0, 1, 1])
    """
    host = durations.cpu().clone()
    host[-1] += -host.sum() % multiple
    return torch.repeat_interleave(host).to(durations.device, non_blocking=True)


class Albert(nn.Module):
    """One transformer layer, applied twelve times."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(_SYMBOLS, 128)
        self.position_embeddings = nn.Embedding(512, 128)
        self.token_type_embeddings = nn.Embedding(2, 128)
        self.LayerNorm = nn.LayerNorm(128, eps=1e-12)
        self.embedding_hidden_mapping_in = nn.Linear(128, 768)
        self.layer = AlbertLayer()

    def forward(self, tokens: Tensor) -> Tensor:
        """(1, n) -> (1, n, 768)."""
        x = self.word_embeddings(tokens) + self.position_embeddings.weight[: tokens.shape[1]]
        x = self.embedding_hidden_mapping_in(self.LayerNorm(x + self.token_type_embeddings.weight[0]))
        for _ in range(12):
            x = self.layer(x)
        return x


class AlbertLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {name: nn.Linear(768, 768) for name in ("query", "key", "value", "dense")}
        )
        self.attention["LayerNorm"] = nn.LayerNorm(768, eps=1e-12)
        self.ffn = nn.Linear(768, 2048)
        self.ffn_output = nn.Linear(2048, 768)
        self.full_layer_layer_norm = nn.LayerNorm(768, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            self.attention[name](x).unflatten(2, (12, 64)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        heard = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = self.attention["LayerNorm"](x + self.attention["dense"](heard))
        return self.full_layer_layer_norm(x + self.ffn_output(F.gelu(self.ffn(x), approximate="tanh")))


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (1, channel, time)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.mT, self.gamma.shape, self.gamma, self.beta, 1e-5).mT


class TextEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_SYMBOLS, 512)
        self.cnn = nn.ModuleList(
            nn.Sequential(nn.Conv1d(512, 512, 5, padding=2), ChannelNorm(512), nn.LeakyReLU(0.2))
            for _ in range(3)
        )
        self.lstm = nn.LSTM(512, 256, batch_first=True, bidirectional=True)

    def forward(self, tokens: Tensor) -> Tensor:
        """(1, n) -> (1, 512, n)."""
        x = self.embedding(tokens).mT
        for layer in self.cnn:
            x = layer(x)
        return self.lstm(x.mT)[0].mT


class StyledLayerNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(STYLE, 1024)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """`x` (1, n, 512)."""
        gain, shift = self.fc(style).flatten().split(512)
        return F.layer_norm(x, (512,), 1 + gain, shift, 1e-5)


class DurationEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = [
            (nn.LSTM(640, 256, batch_first=True, bidirectional=True), StyledLayerNorm()) for _ in range(3)
        ]
        self.lstms = nn.ModuleList(module for pair in layers for module in pair)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """`x` (1, n, 512) -> (1, n, 640): each layer, and who comes next, gets the style beside it."""
        styles = style[:, None].expand(-1, x.shape[1], -1)
        x = torch.cat((x, styles), 2)
        for lstm, norm in zip(self.lstms[::2], self.lstms[1::2], strict=True):
            x = torch.cat((norm(lstm(x)[0], style), styles), 2)
        return x


class Predictor(nn.Module):
    """Durations, pitch and energy."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = DurationEncoder()
        self.lstm = nn.LSTM(640, 256, batch_first=True, bidirectional=True)
        self.duration_proj = nn.ModuleDict({"linear_layer": nn.Linear(512, 50)})
        self.shared = nn.LSTM(640, 256, batch_first=True, bidirectional=True)
        self.F0, self.N = (
            nn.ModuleList((Block(512, 512), Block(512, 256, upsample=True), Block(256, 256)))
            for _ in range(2)
        )
        self.F0_proj, self.N_proj = nn.Conv1d(256, 1, 1), nn.Conv1d(256, 1, 1)

    def durations(self, encoded: Tensor, speed: float) -> Tensor:
        """Frames of each token, int64 (n,)."""
        steps = self.duration_proj["linear_layer"](self.lstm(encoded)[0]).sigmoid().sum(-1)
        return (steps / speed).round().clamp(min=1).long().flatten()

    def curves(self, encoded: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
        """Pitch (Hz) and energy, each (1, 1, 2 * frames), of `encoded` (1, frames, 640)."""
        shared = self.shared(encoded)[0].mT
        pitch = energy = shared
        for pitch_block, energy_block in zip(self.F0, self.N, strict=True):
            pitch, energy = pitch_block(pitch, style), energy_block(energy, style)
        return self.F0_proj(pitch), self.N_proj(energy)

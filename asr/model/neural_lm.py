"""A neural language model over pieces of words: the network, and model.safetensors, config.json and
tokenizer.json in one folder.

A decoder-only transformer (Vaswani et al. 2017, section 3; layer norm before each part), laid out for a
processor's matrix units: no rotary positions, no fused attention, which cost more time there than the
products. Sentences are modelled each for itself.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from asr.model.weights import load_weights, save_weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SENTENCE = 0  # the piece that begins and ends a sentence
_WEIGHTS, _CONFIG, _TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
_FORBIDDEN = -1e4  # added to the attention weights of what a piece must not see


@dataclass(frozen=True, kw_only=True)
class NeuralLMConfig:
    """Sizes. `pieces`: of words, in the vocabulary; `positions`: pieces of a sentence that are told apart by
    their place, those beyond it count as the last."""

    pieces: int = 4096
    dim: int = 256
    layers: int = 5
    heads: int = 4
    positions: int = 160

    def __post_init__(self) -> None:
        for name, size in dataclasses.asdict(self).items():
            if size < 1:
                raise ValueError(f"a neural language model cannot have {size} {name}")
        if self.dim % self.heads:
            raise ValueError(f"{self.heads} heads cannot share {self.dim} channels")


class NeuralLM(nn.Module):
    """Pieces -> what is known about the next one, which `embed` turns to logits."""

    def __init__(self, config: NeuralLMConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.pieces, config.dim)
        self.position = nn.Embedding(config.positions + 1, config.dim)
        for table in (self.embed, self.position):
            nn.init.normal_(table.weight, std=0.02)
        self.first = nn.LayerNorm(config.dim)
        self.blocks = nn.ModuleList(Layer(config.dim, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, pieces: Tensor, positions: Tensor, visible: Tensor) -> Tensor:
        """(batch, n) int64 pieces, (n,) their places in the sentence, (n, n) bool which (column) each (row)
        may see -> (batch, n, dim)."""
        places = self.position(positions.clamp(max=self.config.positions))
        x = self.first(self.embed(pieces) + places)
        mask = torch.zeros(visible.shape, device=x.device).masked_fill_(~visible, _FORBIDDEN)
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, mask = x.to(dtype), mask.to(dtype)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., dim) -> (..., pieces)."""
        return F.linear(hidden, self.embed.weight)


class Layer(nn.Module):
    """x + attention(norm(x)), then x + relu(linear(norm(x))) squared, through a linear (So et al. 2021)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention_in = nn.Linear(dim, 3 * dim, bias=False)
        self.attention_out = nn.Linear(dim, dim, bias=False)
        self.up = nn.Linear(dim, 4 * dim, bias=False)
        self.down = nn.Linear(4 * dim, dim, bias=False)
        nn.init.zeros_(self.attention_out.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, n, dim), mask (n, n) to be added to the attention weights -> (batch, n, dim)."""
        batch, n, dim = x.shape
        size = dim // self.heads
        together = self.attention_in(self.attention_norm(x)).view(batch, n, 3, self.heads, size)
        q, k, v = together.permute(2, 0, 3, 1, 4).reshape(3, batch * self.heads, n, size).unbind(0)
        weights = torch.baddbmm(mask.to(q.dtype), q, k.transpose(1, 2), alpha=size**-0.5)
        heard = torch.bmm(torch.softmax(weights, -1, dtype=weights.dtype), v)
        x = x + self.attention_out(heard.view(batch, self.heads, n, size).transpose(1, 2).reshape(x.shape))
        return x + self.down(F.relu(self.up(self.norm(x))).square())


def save_neural_lm(
    folder: Path, network: NeuralLM, tokenizer: Tokenizer, dtype: torch.dtype = torch.float16
) -> None:
    """`dtype`: as `save_weights`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(network.state_dict(), folder / _WEIGHTS, dtype)
    config = json.dumps(dataclasses.asdict(network.config), indent=1)
    (folder / _CONFIG).write_text(config + "\n", encoding="utf-8")
    (folder / _TOKENIZER).write_text(tokenizer.to_str(), encoding="utf-8")


def load_neural_lm(folder: str | Path) -> tuple[NeuralLM, Tokenizer]:
    """The network, float32 on the CPU, and its tokenizer. Raises ValueError for a folder without all three
    files, or whose files are broken or do not fit together."""
    from tokenizers import Tokenizer

    folder = Path(folder)
    for name in (_WEIGHTS, _CONFIG, _TOKENIZER):
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: no neural language model here ({name} is missing)")
    try:
        network = NeuralLM(NeuralLMConfig(**json.loads((folder / _CONFIG).read_text(encoding="utf-8"))))
        network.load_state_dict(load_weights(folder / _WEIGHTS))
    except (ValueError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder}: not a neural language model that can be read ({reason})") from None
    try:
        tokenizer = Tokenizer.from_str((folder / _TOKENIZER).read_text(encoding="utf-8"))
    except Exception as error:  # the library raises nothing more special
        raise ValueError(f"{folder}: {_TOKENIZER} cannot be read ({error})") from None
    if tokenizer.get_vocab_size() != network.config.pieces:
        sizes = f"{tokenizer.get_vocab_size()} pieces in {_TOKENIZER}, {network.config.pieces} in {_CONFIG}"
        raise ValueError(f"{folder}: {sizes}")
    return network, tokenizer

"""Phones without a lexicon: what is heard, whatever it spells.

`decode_phones` needs nothing. A phone language model and hot phone strings come with pyctcdecode, for which
every phone is a word of one piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asr.phones import PhoneSet

if TYPE_CHECKING:
    from pyctcdecode import BeamSearchDecoderCTC

_INSTALL = (
    "a phone language model and hot phones need pyctcdecode: pip install 'phonebook-asr[pyctcdecode]' "
    "(it wants numpy<2: use an environment of its own if something else needs a newer numpy)"
)
_PIECE = "▁"  # marks, as in SentencePiece, a piece that begins a word


@dataclass(frozen=True, kw_only=True)
class PhoneOptions:
    """`lm`: a KenLM or ARPA file over phones. `hot`: phone strings to prefer; pyctcdecode gives `hot_weight`
    (natural log) to each of their phones. `lm_weight` and `phone_score` are its alpha and beta."""

    lm: Path | None = None
    hot: tuple[str, ...] = ()
    hot_weight: float = 1.0
    lm_weight: float = 0.5
    phone_score: float = 0.5
    beam_size: int = 100


class PhoneDecoder:
    """Emissions to phones with a beam."""

    def __init__(self, phones: PhoneSet, options: PhoneOptions) -> None:
        """Raises ValueError when pyctcdecode is missing, for a bad model file and for unknown phones."""
        self.phones, self.options = phones, options
        self._hot = [" ".join(phones.parse(text)) for text in options.hot]
        if options.lm is not None and not options.lm.is_file():
            raise ValueError(f"{options.lm}: no such language model file")
        self._decoder = self._build()

    def _build(self) -> BeamSearchDecoderCTC:
        try:
            import pyctcdecode
        except ImportError:
            raise ValueError(_INSTALL) from None
        import logging

        # It warns of everything that makes phones unlike English spelling.
        logging.getLogger("pyctcdecode").setLevel(logging.ERROR)
        labels = ["", *(_PIECE + phone for phone in self.phones.phones)]
        options = self.options
        try:
            return pyctcdecode.build_ctcdecoder(
                labels,
                kenlm_model_path=None if options.lm is None else str(options.lm),
                unigrams=None if options.lm is None else list(self.phones.phones),
                alpha=options.lm_weight,
                beta=options.phone_score,
            )
        except OSError:
            raise ValueError(f"{options.lm}: not a language model that KenLM can read") from None

    def decode(self, log_probs: np.ndarray) -> tuple[str, ...]:
        """(frames, tokens) float32, natural log -> phones."""
        text = self._decoder.decode(
            log_probs,
            beam_width=self.options.beam_size,
            hotwords=self._hot or None,
            hotword_weight=self.options.hot_weight,
        )
        return tuple(text.split())


def parse_hot(text: str | None) -> tuple[str, ...]:
    """Phone strings between commas."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())

"""Emissions to words: lexicon tree, n-gram language model, beam search."""

from asr.decoder.decoder import Decoder, greedy
from asr.decoder.ngram import NgramModel
from asr.decoder.options import DecoderOptions, for_embedded_model

__all__ = ["Decoder", "DecoderOptions", "NgramModel", "for_embedded_model", "greedy"]

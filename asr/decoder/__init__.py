"""Emissions to words: lexicon tree, n-gram language model, beam search."""

from asr.decoder.decoder import Decoder, greedy
from asr.decoder.ngram import NgramModel
from asr.decoder.options import DecoderOptions

__all__ = ["Decoder", "DecoderOptions", "NgramModel", "greedy"]

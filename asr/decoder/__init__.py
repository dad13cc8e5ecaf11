"""Emissions to words: lexicon tree, n-gram language model, beam search."""

from asr.decoder.candidates import Rescorer
from asr.decoder.decoder import Decoder
from asr.decoder.ngram import NgramModel
from asr.decoder.options import DecoderOptions, for_embedded_model
from asr.decoder.phone_search import decode_phones

__all__ = ["Decoder", "DecoderOptions", "NgramModel", "Rescorer", "decode_phones", "for_embedded_model"]

"""Decode posteriors with pyctcdecode, in a Python that has it (numpy<2): called by zero_shot_engines.py.

    python recipes/zero_shot_pyctcdecode.py FOLDER

FOLDER holds request.json and speech.npz; the spelled words of each utterance go to standard output, a line
each.
"""

import json
import logging
import sys
from pathlib import Path

import numpy as np

folder = Path(sys.argv[1])
request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
logging.getLogger("pyctcdecode").setLevel(logging.ERROR)  # it warns of all that is unlike English spelling

import pyctcdecode  # noqa: E402

decoder = pyctcdecode.build_ctcdecoder(
    request["labels"],
    kenlm_model_path=request["lm"],
    unigrams=request["words"],
    alpha=request["lm_weight"],
    beta=request["word_score"],
    unk_score_offset=request["unknown_score"],
)
with np.load(folder / "speech.npz") as speech:
    log_probs, lengths = speech["log_probs"], speech["lengths"]
for row, length in zip(log_probs, lengths, strict=True):
    text = decoder.decode(
        row[:length],
        beam_width=request["beam_size"],
        hotwords=request["hot"] or None,
        hotword_weight=request["hot_weight"],
    )
    print(text, flush=True)

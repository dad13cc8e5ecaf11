"""The recognisers that zero_shot.py compares: each is loaded without the held-out words and is given words.

All decode the same posteriors. Ours takes words while it runs; flashlight is built anew with a longer
lexicon; pyctcdecode gets the words as hot words, in a Python of its own because it needs numpy<2.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import zero_shot_spelled as spelled
from benchmark import write_plain_arpa
from benchmark_engines import Job, load_flashlight
from zero_shot_data import Fold, Speech, language_model

from asr import paths
from asr.decoder import Decoder, for_embedded_model
from asr.lexicon import Entry
from asr.phones import PhoneSet
from asr.text import normalize

FLASHLIGHT_BEAM = (
    14.0,
    100,
)  # threshold, size; with 300 it is three times as slow and makes 1 % fewer errors
PYCTCDECODE_BEAM = 100
PYCTCDECODE_UNKNOWN, PYCTCDECODE_HOT = -30.0, 20.0  # its defaults, -10 and 10, glue words together

Hear = Callable[[Sequence[Entry]], list[list[str]]]
"""Words to add -> what is heard in each utterance with them, in normal form."""


def load_shipped(fold: Fold, speech: Speech, phones: PhoneSet) -> Hear:
    """Ours, for which no word was held out."""
    return _phonebook(paths.base_lexicon(), paths.language_model(), speech, phones)


def load_phonebook(fold: Fold, speech: Speech, phones: PhoneSet) -> Hear:
    return _phonebook(fold.lexicon, fold.lm, speech, phones)


def _phonebook(lexicon: Path, lm: Path, speech: Speech, phones: PhoneSet) -> Hear:
    decoder = Decoder.load(lexicon, lm, phones, for_embedded_model(num_threads=1))

    def hear(words: Sequence[Entry]) -> list[list[str]]:
        found = decoder.decode(speech.log_probs, speech.lengths, words)
        return [spoken(hypotheses[0].words) for hypotheses in found]

    return hear


def load_flashlight_with(fold: Fold, speech: Speech, phones: PhoneSet) -> Hear:
    """With our weights, and a language model that gives an unknown word the score that ours gives it."""
    options = for_embedded_model()
    arpa = fold.lm.with_suffix(".unknown.arpa")
    if not arpa.is_file():
        write_plain_arpa(fold.lm, arpa, options.unknown_word_score)
    job = Job(
        engine="flashlight",
        bench=str(fold.lexicon.parent),
        beam=FLASHLIGHT_BEAM,
        arpa=str(arpa),
        weights=(options.lm_weight, options.word_score),
    )
    decode, add = load_flashlight(job, phones)

    def hear(words: Sequence[Entry]) -> list[list[str]]:
        found = (add(words) if words else decode)(speech.log_probs, speech.lengths)
        return [spoken(heard) for heard, _ in found]

    return hear


def load_pyctcdecode(fold: Fold, speech: Speech, phones: PhoneSet, data: Path, python: Path) -> Hear:
    """`python`: one that has pyctcdecode."""
    folder = fold.lm.parent / "spelled"
    lm = language_model(data, fold.lm.with_name("held_out.txt"), fold.lm)
    spelling = spelled.write_language_model(fold.lexicon, lm, phones, folder)
    options = for_embedded_model()

    def hear(words: Sequence[Entry]) -> list[list[str]]:
        hot = spelled.spell(words, phones)
        with tempfile.TemporaryDirectory() as name:
            request = {
                "labels": spelled.labels(phones),
                "words": list(dict.fromkeys(spelling.values())),
                "hot": list(hot.values()),
                "lm": str(folder / "lm.arpa"),
                "lm_weight": options.lm_weight,
                "word_score": options.word_score,
                "beam_size": PYCTCDECODE_BEAM,
                "unknown_score": PYCTCDECODE_UNKNOWN,
                "hot_weight": PYCTCDECODE_HOT,
            }
            Path(name, "request.json").write_text(json.dumps(request), encoding="utf-8")
            log_probs = spelled.doubled(speech.log_probs)
            np.savez(Path(name, "speech.npz"), log_probs=log_probs, lengths=speech.lengths)
            script = Path(__file__).with_name("zero_shot_pyctcdecode.py")
            done = subprocess.run([python, script, name], stdout=subprocess.PIPE, text=True, check=True)
        # A spelling that is also a known word's is read as that.
        heard = [line.split() for line in done.stdout.split("\n")[: len(speech.lengths)]]
        return [spoken(spelled.read_back(spelling | hot, line)) for line in heard]

    return hear


def every(speech: Speech, step: int) -> Speech:
    """Each `step`-th utterance."""
    part = speech.lengths[::step].sum() / speech.lengths.sum()
    return dataclasses.replace(
        speech,
        log_probs=speech.log_probs[::step],
        lengths=speech.lengths[::step],
        references=speech.references[::step],
        hours=float(speech.hours * part),
    )


def spoken(words: Sequence[str]) -> list[str]:
    return normalize(" ".join(words)).split()

"""How good is the network by now: phone error rates on the development sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from asr.decoder.phone_search import PHONE_LM_WEIGHT, best_tokens
from asr.metrics import Errors, phone_errors
from asr.model.arithmetic import autocast
from asr.model.encoder import PhoneModel
from asr.model.features import normalize_features
from asr.phones import PhoneSet
from asr.training.prepared import Prepared
from asr.training.transcripts import guess_missing, lexicon_files, read_pronunciations, words_of

Spoken = tuple[tuple[tuple[int, ...], ...], ...]
"""For each word of an utterance the ways to say it, each in phone ids."""


@dataclass(frozen=True)
class Judge:
    """Development speech in memory with, for each utterance, how its words may be said.

    A word has its first pronunciation; one of the user's lexicon has all that this and the base lexicon give
    it. A word said in another of its pronunciations counts as errors here: these rates are above those of
    `asr evaluate`.
    """

    prepared: Prepared
    references: tuple[Spoken, ...]

    @classmethod
    def open(cls, folder: Path, phones: PhoneSet) -> Judge:
        """Raises ValueError for a folder that was not prepared, LexiconError for bad lines of the user's
        lexicon."""
        prepared = Prepared.open(folder)
        base, *own = lexicon_files()
        of_user = read_pronunciations(own, phones)
        known = {
            word: variants if word in of_user else variants[:1]
            for word, variants in read_pronunciations([base, *own], phones).items()
        }
        texts = words_of(prepared)
        guess_missing(known, texts, phones)
        encoded = {
            word: tuple(tuple(phones.encode(variant)) for variant in known.get(word, ()))
            for word in {word for words in texts for word in words}
        }
        return cls(prepared, tuple(tuple(encoded[w] for w in words if encoded[w]) for words in texts))

    @torch.inference_mode()
    def phone_error_rates(self, network: PhoneModel) -> dict[str, float]:
        """Set -> (substitutions + deletions + insertions) / phones of the nearest way to say the words."""
        errors: dict[str, Errors] = {}
        was_training = network.training
        device = network.ctc.weight.device
        network.eval()
        steps = None if network.phone_lm is None else PHONE_LM_WEIGHT * network.phone_lm.numpy()
        for i, (utterance, reference) in enumerate(
            zip(self.prepared.utterances, self.references, strict=True)
        ):
            frames = torch.from_numpy(self.prepared.frames(i).astype(np.float32))[None].to(device)
            lengths = torch.tensor([frames.shape[1]], device=device)
            with autocast(device):
                log_probs, _ = network(normalize_features(frames, lengths), lengths)
            heard = best_tokens(log_probs[0].cpu().numpy(), steps)
            found = phone_errors(reference, heard.tolist())
            errors[utterance.set] = errors.get(utterance.set, Errors()) + found
        network.train(was_training)
        return {name: found.rate for name, found in errors.items()}

"""How good is the network by now: phone error rates on the development sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numba import njit

from asr.decoder.phone_search import PHONE_LM_WEIGHT, best_tokens, best_tokens_under
from asr.lexicon import Lexicon
from asr.model.encoder import PhoneModel
from asr.model.features import normalize_features
from asr.phones import PhoneSet
from asr.text import normalize
from asr.training.prepared import Prepared


@dataclass(frozen=True)
class Judge:
    """Development speech in memory with, for each utterance, the phones of its words' first pronunciations.

    A word said in another of its pronunciations counts as errors here: these rates are above those of
    `asr evaluate`.
    """

    prepared: Prepared
    references: tuple[np.ndarray, ...]

    @classmethod
    def open(cls, folder: Path, phones: PhoneSet) -> Judge:
        from asr.g2p import pronounce
        from asr.paths import base_lexicon

        prepared = Prepared.open(folder)
        known = {w: v[0] for w, v in Lexicon.read([base_lexicon()], phones).pronunciations().items()}
        texts = [normalize(u.text).split() for u in prepared.utterances]
        missing = sorted({word for words in texts for word in words} - known.keys())
        known |= {
            w: found[0] if found else () for w, found in zip(missing, pronounce(missing, phones), strict=True)
        }
        encoded = [[i for word in words for i in phones.encode(known[word])] for words in texts]
        return cls(prepared, tuple(np.array(ids, np.int32) for ids in encoded))

    @torch.inference_mode()
    def phone_error_rates(self, network: PhoneModel) -> dict[str, float]:
        """Set -> (substitutions + deletions + insertions) / phones of the reference."""
        errors: dict[str, int] = {}
        totals: dict[str, int] = {}
        was_training = network.training
        device = network.ctc.weight.device
        network.eval()
        steps = None if network.phone_lm is None else PHONE_LM_WEIGHT * network.phone_lm.numpy()
        for i, (utterance, reference) in enumerate(
            zip(self.prepared.utterances, self.references, strict=True)
        ):
            frames = torch.from_numpy(self.prepared.frames(i).astype(np.float32))[None].to(device)
            lengths = torch.tensor([frames.shape[1]], device=device)
            with torch.autocast(device.type, torch.bfloat16):
                log_probs, _ = network(normalize_features(frames, lengths), lengths)
            rows = log_probs[0].cpu().numpy()
            heard = best_tokens(rows) if steps is None else best_tokens_under(rows, steps)
            errors[utterance.set] = errors.get(utterance.set, 0) + edit_distance(reference, heard)
            totals[utterance.set] = totals.get(utterance.set, 0) + len(reference)
        network.train(was_training)
        return {name: errors[name] / max(totals[name], 1) for name in totals}


@njit(cache=True)
def edit_distance(a: np.ndarray, b: np.ndarray) -> int:
    """Fewest substitutions, deletions and insertions between two integer sequences."""
    row = np.arange(len(b) + 1)
    for i in range(len(a)):
        diagonal = row[0]
        row[0] = i + 1
        for j in range(len(b)):
            cost = min(diagonal + (a[i] != b[j]), row[j] + 1, row[j + 1] + 1)
            diagonal = row[j + 1]
            row[j + 1] = cost
    return row[len(b)]

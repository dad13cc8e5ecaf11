"""A trained acoustic model on disk: model.safetensors, config.json and phones.txt in one folder.

With the weights of a network that was trained with CTC-CRF lies the phone n-gram of its training."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.model.arithmetic import autocast, computes_in_int8
from asr.model.encoder import EncoderConfig, PhoneModel
from asr.model.features import LogMel, normalize_features
from asr.model.weights import load_weights, save_weights
from asr.phones import PhoneSet

EMBEDDED = Path(__file__).parents[1] / "pretrained"
_WEIGHTS, _CONFIG, _PHONES = "model.safetensors", "config.json", "phones.txt"
_PHONE_LM = "phone_lm"
# A second: with less an utterance's statistics mean nothing (a word cut out closely is not heard at all), so
# it is padded with silence.
_SHORTEST = 16_000


class AcousticModel:
    """Waveforms to phone log-probabilities, ready for use on one device. `phone_lm`: as `decode_phones` takes
    it, for a model that needs one. `one_by_one`: utterances are not computed in batches, so that many threads
    with one each are faster."""

    def __init__(self, network: PhoneModel, phones: PhoneSet, device: torch.device) -> None:
        """The network is the model's own from here on: it may be changed to compute in 8 bits."""
        self.phones = phones
        self.device = device
        self.phone_lm = None if network.phone_lm is None else network.phone_lm.numpy()
        self.frame_s = network.encoder.config.frame_s
        self._features = LogMel().to(device).eval()
        self._network = network.to(device).eval()
        self.one_by_one = computes_in_int8(device)
        if self.one_by_one:
            self._network.encoder.to_int8()

    @torch.inference_mode()
    def log_probs(self, waveforms: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Mono float32 waveforms at 16 kHz of any lengths -> (batch, frames, tokens) float32, natural log,
        and (batch,) int64 frames of each. Beyond an utterance's frames the values mean nothing."""
        if not waveforms:
            return torch.zeros(0, 0, len(self.phones)), torch.zeros(0, dtype=torch.int64)
        samples = [torch.from_numpy(np.ascontiguousarray(w, np.float32)) for w in waveforms]
        samples = [torch.nn.functional.pad(s, (0, max(0, _SHORTEST - len(s)))) for s in samples]
        if not self.one_by_one:
            return self._together(samples)
        # What an utterance is multiplied by must not depend on others.
        rows, lengths = zip(*(self._together([sample]) for sample in samples), strict=True)
        return pad_sequence([row[0] for row in rows], batch_first=True), torch.cat(lengths)

    def _together(self, samples: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """As `log_probs`, of at least one."""
        lengths = torch.tensor([len(s) for s in samples], device=self.device)
        batch = pad_sequence(list(samples), batch_first=True).to(self.device)
        features, frames = self._features(batch, lengths)
        with autocast(self.device):
            log_probs, frames = self._network(normalize_features(features, frames), frames)
        return log_probs, frames


def save_model(
    folder: Path, network: PhoneModel, phones: PhoneSet, dtype: torch.dtype = torch.float16
) -> None:
    """Write the encoder and CTC head (training heads stay out), phone n-gram, configuration and phones.
    `dtype`: as `save_weights`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("frame.")}
    if network.phone_lm is not None:
        state[_PHONE_LM] = network.phone_lm
    save_weights(state, folder / _WEIGHTS, dtype)
    config = json.dumps(dataclasses.asdict(network.encoder.config), indent=1)
    (folder / _CONFIG).write_text(config + "\n", encoding="utf-8")
    (folder / _PHONES).write_text("\n".join(phones.symbols) + "\n", encoding="utf-8")


def load_model(path: str | Path | None = None, device: str | torch.device = "cpu") -> AcousticModel:
    """The model in a folder, or the embedded one. Raises ValueError as `load_network`."""
    network, phones = load_network(path)
    return AcousticModel(network, phones, torch.device(device))


def start_network(
    init: Path | None, config: EncoderConfig, phones: PhoneSet, auxiliary: bool = False
) -> PhoneModel:
    """Random numbers in these sizes, or the model `init` in its own. Raises ValueError if that has other
    phones, and as `load_network`."""
    if init is None:
        return PhoneModel(config, len(phones), auxiliary)
    before, its_phones = load_network(init)
    if its_phones != phones:
        raise ValueError(f"{init}: its phones are not those of the training data")
    network = PhoneModel(before.encoder.config, len(phones), auxiliary)
    network.load_state_dict(before.state_dict(), strict=False)  # it has no auxiliary head
    return network


def load_network(path: str | Path | None = None) -> tuple[PhoneModel, PhoneSet]:
    """The bare network, float32 on the CPU, and its phones.

    Raises ValueError for a folder without all three files, or whose files are broken or do not fit together.
    """
    folder = Path(path) if path is not None else EMBEDDED
    for name in (_WEIGHTS, _CONFIG, _PHONES):
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: no acoustic model here ({name} is missing)")
    try:
        fields = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        phones = PhoneSet.read(folder / _PHONES)
        network = PhoneModel(EncoderConfig(**fields), len(phones))
        state = load_weights(folder / _WEIGHTS)
    except (ValueError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{folder}: not a model that this version can read ({reason})") from None
    if state.get("ctc.bias") is None or len(state["ctc.bias"]) != len(phones):
        raise ValueError(f"{folder}: the weights do not belong to the {len(phones)} tokens of {_PHONES}")
    network.phone_lm = state.pop(_PHONE_LM, None)
    if network.phone_lm is not None and network.phone_lm.shape != (len(phones),) * 3:
        raise ValueError(
            f"{folder}: the phone n-gram does not belong to the {len(phones)} tokens of {_PHONES}"
        )
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        # The first line only says what failed; the next one names the weights.
        detail = str(error).split("\n")[1].strip()
        raise ValueError(f"{folder}: weights and {_CONFIG} disagree ({detail})") from None
    return network, phones

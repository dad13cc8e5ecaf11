"""Speech from text through espeak-ng: a quick way to an example, no more."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples come to the callback
_UTF8 = 1
_RATE_PARAMETER = 1
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def say(text: str, path: str | Path, voice: str = "en-us", words_per_minute: int = 150) -> float:
    """Write `text`, spoken by espeak-ng, as a 16-bit sound file; returns its seconds.

    Raises ValueError for an empty text, an unknown voice, and a file that cannot be written.
    """
    import espeakng_loader
    import soundfile

    if not text.strip():
        raise ValueError("there is nothing to say: the text is empty")
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
    if rate <= 0:
        raise ValueError("espeak-ng could not be started")
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise ValueError(f"espeak-ng has no voice {voice!r}; try en-us, en-gb-x-rp or en-us+f3")
    library.espeak_SetParameter(_RATE_PARAMETER, words_per_minute, 0)
    blocks: list[np.ndarray] = []

    def receive(samples, count, _events):  # type: ignore[no-untyped-def]
        if samples and count > 0:
            blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    callback = _Callback(receive)
    library.espeak_SetSynthCallback(callback)
    encoded = text.encode()
    library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded) + 1), 0, 0, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    if not any(block.any() for block in blocks):
        raise ValueError(f"there is nothing to say: {text!r} has no words")
    samples = np.concatenate(blocks)
    if not Path(path).parent.is_dir():
        raise ValueError(f"{path}: cannot be written: there is no folder {Path(path).parent}")
    try:
        soundfile.write(str(path), samples, rate)
    except (soundfile.LibsndfileError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: cannot be written ({error}); give a name that ends in .wav, .flac or .ogg"
        ) from None
    return len(samples) / rate

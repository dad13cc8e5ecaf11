"""Phonebook: speech recognition whose vocabulary is a text file.

from asr import Recognizer
recognizer = Recognizer.load(lexicon=["my-words.txt"])
print(recognizer.transcribe(["meeting.wav"])[0].text)
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Recognizer", "__version__"]

if TYPE_CHECKING:
    from asr.transcribe import Recognizer


def __getattr__(name: str) -> object:
    # `import asr` stays instant: torch is only imported once a recognizer is asked for.
    if name == "Recognizer":
        from asr.transcribe import Recognizer

        return Recognizer
    raise AttributeError(f"module 'asr' has no attribute {name!r}")

"""N-gram models in half the bytes of a compressed ARPA file: number by number instead of word by word.

The n-grams of an order are sorted, as `NgramModel` numbers them: how many words follow each context, which
ones (the distance from one to the next), and scores in hundredths of log10, or steps of several. Each kind of
number stands together, its lowest bytes first, then the next ones, and xz does the rest.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Sequence

import numpy as np

from asr.decoder.arpa import Section

MAGIC = b"phonebook n-grams 1\n"
SUFFIX = ".ngrams.xz"
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]
_LIMIT = 32_767  # of steps: far below the -99 of what never happens


def pack(words: Sequence[str], sections: Sequence[Section], step: int = 1) -> bytes:
    """What `read_arpa` gives, scores rounded to multiples of `step` hundredths -> the content of a file.
    Raises ValueError for an n-gram whose beginning is no n-gram itself."""
    parts = []
    keys: list[np.ndarray] = []  # by order: context row << 32 | last word, sorted
    for order, section in enumerate(sections, 1):
        rows = section.grams[:, 0].astype(np.int64)
        for k in range(1, order):
            wanted = rows << 32 | section.grams[:, k]
            if k == order - 1:
                place = np.argsort(wanted, kind="stable")
                keys.append(wanted[place])
            else:
                rows = _find(keys[k], wanted)
        if order == 1:
            keys.append(rows)
            place = np.argsort(rows, kind="stable")
        else:
            counts = np.bincount(keys[-1] >> 32, minlength=len(keys[-2]))
            parts += [_planes(counts, np.int32), _planes(_steps(keys[-1] & 0xFFFFFFFF, counts), np.int32)]
        for scores in (section.prob, section.backoff):
            steps = np.rint(scores[place] * (100 / step)).clip(-_LIMIT, _LIMIT)
            parts.append(_planes(steps, np.int16))
    listed = "\n".join(words).encode()
    header = {"sizes": [len(of.grams) for of in sections], "words": len(listed), "step": step}
    content = b"".join([MAGIC, json.dumps(header).encode() + b"\n", listed, *parts])
    return lzma.compress(content, filters=_FILTERS)


def unpack(content: bytes, path: str) -> tuple[list[str], list[Section]]:
    """What `pack` was given, from what xz makes of its file. Raises ValueError for anything else."""
    try:
        return _unpack(content)
    except (ValueError, KeyError, TypeError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"{path}: a damaged language model ({error})") from None


def _unpack(content: bytes) -> tuple[list[str], list[Section]]:
    at = content.index(b"\n", len(MAGIC)) + 1
    header = json.loads(content[len(MAGIC) : at])
    words = content[at : at + header["words"]].decode().split("\n")
    at += header["words"]
    per_unit = 100 / header.get("step", 1)

    def column(count: int, kind: type[np.integer]) -> np.ndarray:
        nonlocal at
        size = np.dtype(kind).itemsize
        planes = np.frombuffer(content, np.uint8, count * size, at).reshape(size, count)
        at += count * size
        return np.ascontiguousarray(planes.T).view(np.dtype(kind).newbyteorder("<"))[:, 0]

    sections: list[Section] = []
    grams = np.arange(len(words), dtype=np.int32)[:, None]
    for order, size in enumerate(header["sizes"], 1):
        if order > 1:
            counts = column(len(grams), np.int32)
            contexts = np.repeat(np.arange(len(grams)), counts)
            lasts = _sums(column(size, np.int32).astype(np.int64), counts)
            grams = np.column_stack([grams[contexts], lasts.astype(np.int32)])
        if len(grams) != size:
            raise ValueError(f"{len(grams)} {order}-grams, not {size}")
        prob, backoff = (column(size, np.int16) / per_unit for _ in range(2))
        sections.append(Section(grams, prob, backoff))
    if at != len(content):
        raise ValueError("of another length")
    return words, sections


def arpa_lines(words: Sequence[str], sections: Sequence[Section]) -> Iterator[str]:
    """The lines of an ARPA file, with line ends."""
    yield "\\data\\\n"
    yield from (f"ngram {order}={len(section.grams)}\n" for order, section in enumerate(sections, 1))
    for order, section in enumerate(sections, 1):
        yield f"\n\\{order}-grams:\n"
        rows = zip(section.grams.tolist(), section.prob.tolist(), section.backoff.tolist(), strict=True)
        for gram, prob, backoff in rows:
            text = " ".join(words[i] for i in gram)
            yield f"{prob:.7g}\t{text}\t{backoff:.7g}\n" if backoff else f"{prob:.7g}\t{text}\n"
    yield "\n\\end\\\n"


def _find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    rows = np.searchsorted(keys, wanted).clip(max=max(len(keys) - 1, 0))
    if len(wanted) and (not len(keys) or (keys[rows] != wanted).any()):
        raise ValueError("an n-gram whose beginning is no n-gram itself")
    return rows


def _steps(lasts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Word ids that ascend within each context -> the first one, then how many are left out between two."""
    steps = np.diff(lasts, prepend=0) - 1
    firsts = _firsts(counts)
    steps[firsts] = lasts[firsts]
    return steps


def _sums(steps: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The inverse of `_steps`."""
    firsts = _firsts(counts)
    steps = steps + 1
    steps[firsts] -= 1
    totals = np.cumsum(steps)
    return totals - np.repeat(totals[firsts] - steps[firsts], counts[counts > 0])


def _firsts(counts: np.ndarray) -> np.ndarray:
    """Where each context that is followed by anything begins."""
    return (np.cumsum(counts, dtype=np.int64) - counts)[counts > 0]


def _planes(values: np.ndarray, kind: type[np.integer]) -> bytes:
    """Little-endian: the lowest bytes of all, then the next ones."""
    as_bytes = values.astype(np.dtype(kind).newbyteorder("<")).view(np.uint8)
    return as_bytes.reshape(len(values), -1).T.tobytes()

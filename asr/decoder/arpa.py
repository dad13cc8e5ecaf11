"""ARPA files, plain or compressed, into arrays: a kernel reads the lines, Python only the words of the
unigrams."""

from __future__ import annotations

import gzip
import lzma
from dataclasses import dataclass

import numpy as np
from numba import njit

_UNKNOWN = "<unk>"
# KenLM's log10 score for a word that the ARPA file gives no <unk> for.
_MISSING_UNKNOWN = -100.0
_SPACE, _TAB, _LINE, _RETURN = 32, 9, 10, 13
_MINUS, _PLUS, _DOT, _ZERO, _LOWER_E, _UPPER_E = 45, 43, 46, 48, 101, 69


@dataclass(frozen=True)
class Section:
    """The n-grams of one order: `grams` int32 (n-grams, order) word ids, log10 `prob` and `backoff`
    float64."""

    grams: np.ndarray
    prob: np.ndarray
    backoff: np.ndarray


def read_arpa(content: bytes, path: str) -> tuple[list[str], list[Section]]:
    """The words in the order of their ids (<unk> is 0) and the sections. Raises ValueError naming the
    line."""
    spans = _spans(content, path)
    words, unigrams = _unigrams(content[slice(*spans[0])], path)
    table = _word_table([word.encode() for word in words])
    sections = [unigrams]
    buffer = np.frombuffer(content, np.uint8)
    for order, (begin, end) in enumerate(spans[1:], 2):
        most = content.count(b"\n", begin, end) + 1
        grams, prob, backoff = np.empty((most, order), np.int32), np.empty(most), np.zeros(most)
        count, bad = _read_lines(buffer, begin, end, *table, grams, prob, backoff)
        if bad >= 0:
            line = content[bad : content.find(b"\n", bad)].decode("utf-8", "replace").strip()
            raise ValueError(f"{path}: bad {order}-gram line {line!r}")
        sections.append(Section(grams[:count], prob[:count], backoff[:count]))
    return words, sections


def unpacked(raw: bytes, path: str) -> bytes:
    """The content of a file, which may be compressed. Raises ValueError if it is damaged."""
    try:
        if raw[:2] == b"\x1f\x8b":
            return gzip.decompress(raw)
        if raw[:6] == b"\xfd7zXZ\0":
            return lzma.decompress(raw)
    except (OSError, EOFError, lzma.LZMAError):
        raise ValueError(f"{path}: not an ARPA language model (or a damaged one)") from None
    return raw


def _spans(content: bytes, path: str) -> list[tuple[int, int]]:
    """Where the lines of each order begin and end."""
    spans: list[tuple[int, int]] = []
    at = content.find(b"\\1-grams:")
    if at < 0 or b"\\data\\" not in content[:at]:
        raise ValueError(f"{path}: not an ARPA language model (no \\data\\ and \\1-grams:)")
    while at >= 0:
        begin = content.find(b"\n", at + 1) + 1
        following = content.find(b"\n\\%d-grams:" % (len(spans) + 2), begin - 1)
        end = following if following >= 0 else content.find(b"\n\\end\\", begin - 1)
        if begin == 0 or end < 0:
            raise ValueError(f"{path}: the ARPA file breaks off (no \\end\\)")
        spans.append((begin, max(begin, end)))
        at = following
    return spans


def _unigrams(content: bytes, path: str) -> tuple[list[str], Section]:
    words, prob, backoff = [_UNKNOWN], [_MISSING_UNKNOWN], [0.0]
    line = b""
    try:
        for line in content.split(b"\n"):
            fields = line.decode("utf-8").split()
            if not fields:
                continue
            score = float(fields[0])
            weight = float(fields[2]) if len(fields) == 3 else 0.0
            if len(fields) not in (2, 3):
                raise ValueError
            if fields[1] == _UNKNOWN:
                prob[0], backoff[0] = score, weight
                continue
            words.append(fields[1])
            prob.append(score)
            backoff.append(weight)
    except ValueError:  # a bad number, or bytes that are no text
        raise ValueError(f"{path}: bad line {line.decode('utf-8', 'replace')!r}") from None
    return words, Section(np.arange(len(words), dtype=np.int32)[:, None], np.array(prob), np.array(backoff))


def _word_table(words: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """A hash table from a word's 64-bit fingerprint to its id: keys uint64 and ids int32, -1 where there is
    none."""
    size = 1 << (2 * len(words)).bit_length()
    keys, ids = np.zeros(size, np.uint64), np.full(size, -1, np.int32)
    ends = np.cumsum([len(word) for word in words], dtype=np.int64)
    _fill_table(np.frombuffer(b"".join(words), np.uint8), ends, keys, ids)
    return keys, ids


@njit(cache=True, inline="always")
def _fingerprint(buffer, begin, end):
    """FNV-1a, 64 bits, stirred once more."""
    h = np.uint64(0xCBF29CE484222325)
    for i in range(begin, end):
        h = (h ^ np.uint64(buffer[i])) * np.uint64(0x100000001B3)
    return h ^ (h >> np.uint64(29))


@njit(cache=True)
def _fill_table(buffer, ends, keys, ids):
    begin = 0
    for word in range(ends.shape[0]):
        key = _fingerprint(buffer, begin, ends[word])
        slot = np.int64(key & np.uint64(keys.shape[0] - 1))
        while ids[slot] >= 0:
            slot = (slot + 1) & (keys.shape[0] - 1)
        keys[slot], ids[slot] = key, word
        begin = ends[word]


@njit(cache=True)
def _read_lines(buffer, begin, end, keys, ids, grams, prob, backoff):
    """Lines `number word ... [number]` -> how many there were, and where a bad one begins, or -1."""
    order = grams.shape[1]
    count, at = 0, begin
    while at < end:
        line = at
        at = _skip(buffer, at, end)
        if at == end or buffer[at] == _LINE:
            at += 1
            continue
        prob[count], at = _number(buffer, at, end)
        if at < 0:
            return count, line
        for k in range(order):
            at = _skip(buffer, at, end)
            word = at
            while (
                at < end
                and buffer[at] != _SPACE
                and buffer[at] != _TAB
                and buffer[at] != _LINE
                and buffer[at] != _RETURN
            ):
                at += 1
            key = _fingerprint(buffer, word, at)
            slot = np.int64(key & np.uint64(keys.shape[0] - 1))
            while ids[slot] >= 0 and keys[slot] != key:
                slot = (slot + 1) & (keys.shape[0] - 1)
            if word == at or ids[slot] < 0:
                return count, line
            grams[count, k] = ids[slot]
        at = _skip(buffer, at, end)
        backoff[count] = 0.0
        if at < end and buffer[at] != _LINE:
            backoff[count], at = _number(buffer, at, end)
            if at < 0:
                return count, line
            at = _skip(buffer, at, end)
            if at < end and buffer[at] != _LINE:
                return count, line
        at += 1
        count += 1
    return count, -1


@njit(cache=True, inline="always")
def _skip(buffer, at, end):
    while at < end and (buffer[at] == _SPACE or buffer[at] == _TAB or buffer[at] == _RETURN):
        at += 1
    return at


@njit(cache=True)
def _number(buffer, at, end):
    """A decimal number and the place behind it, -1 where there is none."""
    sign = 1.0
    if at < end and (buffer[at] == _MINUS or buffer[at] == _PLUS):
        sign = -1.0 if buffer[at] == _MINUS else 1.0
        at += 1
    digits, scale, value = 0, 0, 0.0
    fraction = False
    while at < end:
        c = buffer[at]
        if c == _DOT and not fraction:
            fraction = True
        elif _ZERO <= c < _ZERO + 10:
            value = value * 10.0 + (c - _ZERO)
            digits += 1
            scale -= fraction
        else:
            break
        at += 1
    if digits == 0:
        return 0.0, np.int64(-1)
    if at < end and (buffer[at] == _LOWER_E or buffer[at] == _UPPER_E):
        at += 1
        exponent_sign = 1
        if at < end and (buffer[at] == _MINUS or buffer[at] == _PLUS):
            exponent_sign = -1 if buffer[at] == _MINUS else 1
            at += 1
        exponent, first = 0, at
        while at < end and _ZERO <= buffer[at] < _ZERO + 10:
            exponent = exponent * 10 + np.int64(buffer[at] - _ZERO)
            at += 1
        if at == first:
            return 0.0, np.int64(-1)
        scale += exponent_sign * exponent
    if (
        at < end
        and buffer[at] != _SPACE
        and buffer[at] != _TAB
        and buffer[at] != _LINE
        and buffer[at] != _RETURN
    ):
        return 0.0, np.int64(-1)
    return sign * value * 10.0**scale, np.int64(at)

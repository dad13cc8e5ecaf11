"""Slow, obviously right edit distance and what is told apart by it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def edit_distance(reference: Sequence[str], heard: Sequence[str]) -> int:
    """The fewest substitutions, deletions and insertions, by the definition."""
    if not reference or not heard:
        return len(reference) + len(heard)
    return min(
        edit_distance(reference[1:], heard[1:]) + (reference[0] != heard[0]),
        edit_distance(reference[1:], heard) + 1,
        edit_distance(reference, heard[1:]) + 1,
    )


def nearest_reading(variants: Sequence[Sequence[Sequence[str]]], heard: Sequence[str]) -> tuple[int, int]:
    """(errors, length) of the nearest of all ways to pronounce the words, the shortest of equally near."""
    ways = [[phone for word in way for phone in word] for way in itertools.product(*variants)]
    return min((edit_distance(way, heard), len(way)) for way in ways)

"""The Pareto front of accuracy against speed."""

from collections.abc import Sequence
from typing import NamedTuple

NO_DIFFERENCE_DB = 0.1  # of SQNR


class Point(NamedTuple):
    """A file of a tool: its quality (SQNR in dB or a share), and the two ends of the interval of its speed-up."""

    tool: str
    quality: float
    slowest: float
    fastest: float


def beats(a: Point, b: Point, margin: float = NO_DIFFERENCE_DB) -> bool:
    """Whether `a` is better than `b` in one of both by more than the noise, and no worse in the other."""
    faster, slower = a.slowest > b.fastest, b.slowest > a.fastest
    better, worse = a.quality > b.quality + margin, a.quality < b.quality - margin
    return (faster and not worse) or (better and not slower)


def beaten(points: Sequence[Point], margin: float = NO_DIFFERENCE_DB) -> dict[str, str]:
    """Return each tool that another tool beats, with the first of these others."""
    found = {b.tool: next((a.tool for a in points if beats(a, b, margin)), "") for b in points}
    return {tool: other for tool, other in found.items() if other}


def reaches(a: Point, b: Point, margin: float = NO_DIFFERENCE_DB) -> bool:
    """Whether `a` is neither slower nor worse than `b`, by more than the noise."""
    return not (b.slowest > a.fastest or a.quality < b.quality - margin)


def out_of_reach(own: Sequence[Point], others: Sequence[Point], margin: float = NO_DIFFERENCE_DB) -> list[str]:
    """Return the others, of their own frontier, that no own point reaches; none means that `own` lies on or above that frontier."""
    behind = beaten(others, margin)
    return [b.tool for b in others if b.tool not in behind and not any(reaches(a, b, margin) for a in own)]

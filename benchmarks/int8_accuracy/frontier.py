"""Which points of accuracy against speed are worth having."""

from collections.abc import Sequence
from typing import NamedTuple

NO_DIFFERENCE_DB = 0.1  # of SQNR


class Point(NamedTuple):
    """A file of a tool: its SQNR, and the two ends of the interval of its speed-up."""

    tool: str
    sqnr_db: float
    slowest: float
    fastest: float


def beats(a: Point, b: Point) -> bool:
    """Whether `a` is better than `b` in one of both by more than the noise, and no worse in the other."""
    faster, slower = a.slowest > b.fastest, b.slowest > a.fastest
    better, worse = a.sqnr_db > b.sqnr_db + NO_DIFFERENCE_DB, a.sqnr_db < b.sqnr_db - NO_DIFFERENCE_DB
    return (faster and not worse) or (better and not slower)


def beaten(points: Sequence[Point]) -> dict[str, str]:
    """Return, for each tool that another one beats, the first such."""
    found = {b.tool: next((a.tool for a in points if beats(a, b)), "") for b in points}
    return {tool: other for tool, other in found.items() if other}

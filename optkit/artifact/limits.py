"""The one rule by which a measured figure is compared with a limit that a person typed.

A limit is decimal and a figure is binary: 0.785 - 0.78 is 0.0050000000000000044, which is within a limit of 0.005. Figures may also come
from float32, whose rounding is 6e-8 of the value. So a figure that equals the limit within 1e-7 of it is within the limit.
"""

import math

ROUNDING = 1e-7  # of the figure or of the limit, whichever is larger
_ZERO = 1e-12  # where the limit is 0


def at_most(figure: float, limit: float) -> bool:
    """Whether a figure is within an upper limit; NaN is not."""
    return figure <= limit or math.isclose(figure, limit, rel_tol=ROUNDING, abs_tol=_ZERO)


def at_least(figure: float, limit: float) -> bool:
    """Whether a figure reaches a lower limit; NaN does not."""
    return figure >= limit or math.isclose(figure, limit, rel_tol=ROUNDING, abs_tol=_ZERO)


def fell_at_most(before: float, now: float, drop: float) -> bool:
    """Whether a figure fell by no more than a drop; NaN did not.

    The lowest allowed figure is compared, not the difference, because a difference has the rounding of the two large figures.
    """
    lowest = before - drop
    return at_least(now, lowest) or math.isclose(now, lowest, rel_tol=0, abs_tol=ROUNDING * abs(before))

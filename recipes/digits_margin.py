"""A part in plain numpy for Triton's Python backend: the margin of the first choice."""

import numpy as np


def margin(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the difference between the two largest probabilities: margin (batch,) of probabilities (batch, 3)."""
    probabilities = feed["probabilities"]
    return {"margin": probabilities[:, 0] - probabilities[:, 1]}

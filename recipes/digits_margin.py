"""A part in plain numpy, which Triton's Python backend runs: how sure the model is of its first choice."""

import numpy as np


def margin(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return how far the most probable digit is ahead of the next: margin (batch,) of probabilities (batch, 3)."""
    probabilities = feed["probabilities"]
    return {"margin": probabilities[:, 0] - probabilities[:, 1]}

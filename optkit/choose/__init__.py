"""Choices that need a check or a measurement, one file a choice."""

from optkit.choose.stage import run_stage
from optkit.choose.winner import Winner, fastest

__all__ = ["Winner", "fastest", "run_stage"]

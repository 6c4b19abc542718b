"""Choices that need a check or a measurement, one file a choice."""

from optkit.choose.stage import run_stage
from optkit.choose.winner import Candidate, Choice, Winner, choose_winner

__all__ = ["Candidate", "Choice", "Winner", "choose_winner", "run_stage"]

"""Carrying out: the plan of a recipe, the run of a plan, and the single steps of the command line."""

from optkit.pipeline.plan import Plan, make_plan
from optkit.pipeline.records import BenchRecord, RunRecord, SelfTestRecord, StepResult
from optkit.pipeline.run import run

__all__ = ["BenchRecord", "Plan", "RunRecord", "SelfTestRecord", "StepResult", "make_plan", "run"]

"""Carrying out: the plan of a recipe, the run of a plan, and the single steps of the command line."""

from optkit.pipeline.plan import Origin, Plan, make_plan
from optkit.pipeline.records import BenchRecord, RunRecord, SelfTestRecord, StepResult
from optkit.pipeline.run import read_run, run

__all__ = ["BenchRecord", "Origin", "Plan", "RunRecord", "SelfTestRecord", "StepResult", "make_plan", "read_run", "run"]

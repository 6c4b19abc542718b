"""The runners, one file a runtime, and `open_runner`, which selects one."""

from optkit.runners.base import CallPlan, Device, OwnTimes, Runner
from optkit.runners.opening import open_runner, why_not_runnable

__all__ = ["CallPlan", "Device", "OwnTimes", "Runner", "open_runner", "why_not_runnable"]

"""The runners, one file a runtime, and `open_runner`, which picks one."""

from optkit.runners.base import CallPlan, Device, OwnTimes, Runner
from optkit.runners.opening import obstacle, open_runner

__all__ = ["CallPlan", "Device", "OwnTimes", "Runner", "obstacle", "open_runner"]

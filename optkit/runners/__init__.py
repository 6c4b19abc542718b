"""The runners, one file a runtime, and `open_runner`, which picks one."""

from optkit.runners.base import Device, Runner
from optkit.runners.opening import open_runner

__all__ = ["Device", "Runner", "open_runner"]

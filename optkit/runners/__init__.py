"""The runners, one file for each runtime, behind one contract: a feed in, outputs out.

base            the contract
opening         selects the runner of a format
pytorch         eager, TorchScript, ExportedProgram
onnxruntime, tensorrt
aoti            packages of native code
cuda            the parts of a call on a GPU, and captured CUDA graphs
"""

from optkit.runners.base import CallPlan, Device, OwnTimes, Runner
from optkit.runners.opening import open_runner, why_not_runnable

__all__ = ["CallPlan", "Device", "OwnTimes", "Runner", "open_runner", "why_not_runnable"]

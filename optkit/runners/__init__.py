"""One file for each runtime, behind one contract: a feed in, outputs out.

base            the contract
opening         which runner runs which format
pytorch         eager, TorchScript, ExportedProgram
onnxruntime, tensorrt
cuda            the parts of a call on a GPU, and captured CUDA graphs
"""

from optkit.runners.base import CallPlan, Device, OwnTimes, Runner
from optkit.runners.opening import obstacle, open_runner

__all__ = ["CallPlan", "Device", "OwnTimes", "Runner", "obstacle", "open_runner"]

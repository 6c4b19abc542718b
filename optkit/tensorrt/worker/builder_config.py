"""The settings of a build for TensorRT's builder, and the options that a runtime does not support."""

from __future__ import annotations

import json
import threading
from typing import Any, Sequence

from .protocol import Channel, FaultError, Json
from .runtimes import title

# The default targets of TensorRT-RTX: https://docs.nvidia.com/deeplearning/tensorrt-rtx, "CPU-Only AOT Engines"
PORTABLE = ("sm80", "sm86", "sm89", "sm120", "sm121")
_OPTION_FLAGS = (("refit", "REFIT"), ("strip", "STRIP_PLAN"), ("version_compatible", "VERSION_COMPATIBLE"))


def is_strongly_typed(trt: Any) -> bool:
    """Return whether a release uses the precisions of the ONNX file; 8.6 uses builder flags instead."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def refuse_impossible(job: Json, runtime: str, trt: Any, gpu: Json | None, no_gpu: str) -> None:
    """Refuse options that the chosen runtime does not support here, before any work.

    Raises:
        FaultError: the message has the option and the reason.
    """
    refusals = _impossible_in_rtx(job, gpu, no_gpu) if runtime == "tensorrt-rtx" else _impossible(job, trt, gpu)
    refusals += [
        f"precision {kind}: this release is not strongly typed and has no builder flag for it"
        for kind in job["types"]
        if not is_strongly_typed(trt) and not hasattr(trt.BuilderFlag, kind.upper())
    ]
    if refusals:
        raise FaultError(
            "{} {} does not support these options: {}".format(runtime, trt.__version__, "; ".join(refusals))
        )


def _impossible_in_rtx(job: Json, gpu: Json | None, no_gpu: str) -> list[str]:
    refusals = []
    if job["hardware_compatible"]:
        refusals.append(
            "--hardware-compatible: its engines run on every target of one build; set the targets with --gpu"
        )
    if job["timing_cache"] and not job["timing_cache_default"]:
        refusals.append("--timing-cache: its builds measure nothing, so there is no timing cache")
    if job["version_compatible"]:
        refusals.append("--version-compatible: such an engine needs the lean runtime, which its wheels do not include")
    if gpu is None:
        refusals += [f"--{option}: needs a GPU: {no_gpu}" for option in ("refit", "strip") if job[option]]
    return refusals


def _impossible(job: Json, trt: Any, gpu: Json | None) -> list[str]:
    refusals = []
    if job["targets"] and list(job["targets"]) != [gpu["sm"] if gpu else ""]:
        refusals.append(
            "--gpu {}: it builds only for the GPU of this machine, {}; build on that GPU, or use --runtime tensorrt-rtx".format(
                ",".join(job["targets"]), gpu["sm"] if gpu else "none"
            )
        )
    refusals += [
        "--{}: this release does not have it".format(option.replace("_", "-"))
        for option, flag in _OPTION_FLAGS
        if job[option] and not hasattr(trt.BuilderFlag, flag)
    ]
    level = job["hardware_compatible"]
    if level and not hasattr(getattr(trt, "HardwareCompatibilityLevel", None), _constant(level)):
        refusals.append(f"--hardware-compatible {level}: this release does not have it")
    return refusals


def _constant(option: str) -> str:
    """Return the name of TensorRT's constant for the value of an option, such as ampere-plus."""
    return option.upper().replace("-", "_")


def configure(trt: Any, config: Any, job: Json) -> list[str]:
    """Set limits and flags, and return the names of the flags.

    Raises:
        FaultError: TensorRT rejects a flag.
    """
    typed = is_strongly_typed(trt)
    flags = [flag for option, flag in _OPTION_FLAGS if job[option]]
    if not typed:  # 8.6: a precision of the file is used only where its flag is set
        flags += [kind.upper() for kind in job["types"]]
    if job["tf32"]:
        flags.append("TF32")
    else:  # TensorRT's default allows TF32 (10-bit mantissa) for FP32 math
        config.clear_flag(trt.BuilderFlag.TF32)
    for flag in flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
        if not config.get_flag(getattr(trt.BuilderFlag, flag)):
            raise FaultError(f"{title(trt)} did not take the flag {flag}")
    if job["workspace_mib"]:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job["workspace_mib"] << 20)
    if job["optimization_level"] is not None:
        config.builder_optimization_level = job["optimization_level"]
    if job["hardware_compatible"]:
        level = getattr(trt.HardwareCompatibilityLevel, _constant(job["hardware_compatible"]))
        config.hardware_compatibility_level = level
    config.profiling_verbosity = (
        trt.ProfilingVerbosity.DETAILED
    )  # so that the inspector reports the types of every layer
    sharing = getattr(trt.PreviewFeature, "PROFILE_SHARING_0806", None)
    if sharing is not None and not typed:  # 8.6: several contexts may use one profile; later releases always allow it
        config.set_preview_feature(sharing, True)
    return flags


def set_targets(trt: Any, config: Any, targets: Sequence[str], runtime: str, gpu: Json | None) -> list[str]:
    """Set the target GPUs, and return all of them.

    Raises:
        FaultError: the runtime does not support a target.
    """
    if runtime == "tensorrt":
        return [gpu["sm"]] if gpu else []
    if not targets:
        return list(PORTABLE)
    known = [name for name in dir(trt.ComputeCapability) if name.startswith("SM")]
    unknown = [t for t in targets if t.upper() not in known]
    if unknown:
        raise FaultError("--gpu {}: {} builds for {}".format(
            ",".join(unknown), title(trt), ", ".join(sorted((k.lower() for k in known), key=lambda k: int(k[2:])))))  # fmt: skip
    config.num_compute_capabilities = len(targets)
    for i, target in enumerate(targets):
        if not config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), i):
            raise FaultError(f"--gpu {target}: TensorRT-RTX refused it")
    return list(targets)


def add_profiles(builder: Any, config: Any, network: Any, profiles: Sequence[Json]) -> None:
    """Add the optimization profiles.

    Raises:
        FaultError: TensorRT rejects a profile (it returns the index -1).
    """
    names = {network.get_input(i).name for i in range(network.num_inputs)}
    for number, ranges in enumerate(profiles):
        unknown = sorted(set(ranges) - names)
        if unknown:  # TensorRT would accept it, and the engine would fail later
            raise FaultError(f"profile {number}: no input is named {unknown[0]!r}")
        profile = builder.create_optimization_profile()
        for name, (low, opt, high) in ranges.items():
            profile.set_shape(name, low, opt, high)
        if config.add_optimization_profile(profile) < 0:
            raise FaultError(f"profile {number}: TensorRT refuses {json.dumps(ranges)}")


def make_monitor(trt: Any, channel: Channel, cancelled: threading.Event) -> Any:
    """Return a monitor that sends the progress of each phase, and stops the build once `cancelled` is set."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            channel.send(progress="start", phase=phase_name, parent=parent_phase, steps=num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            channel.send(progress="step", phase=phase_name, step=step)
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            channel.send(progress="finish", phase=phase_name)

    return Monitor()

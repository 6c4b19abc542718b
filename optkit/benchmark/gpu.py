"""The state of a GPU during a measurement: clocks, temperature, power and throttle reasons, sampled through NVML.

The tests use a stand-in for NVML. On a real GPU clocks, power and temperature were read; throttling never occurred there.
"""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np

from optkit import deps
from optkit.artifact.findings import GpuConditions
from optkit.benchmark.timing import Block, GpuSample
from optkit.runners import Device

INTERVAL_S = 0.02  # between two samples; NVML refreshes most values about as often

# Bits of nvmlDeviceGetCurrentClocksEventReasons that mean throttling. An idle GPU (1) and clocks set by the user (2) do not.
THROTTLES = {
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}


class GpuWatch:
    """Samples one GPU from its own thread while the block runs."""

    def __init__(self, nvml: Any, handle: Any, interval_s: float = INTERVAL_S) -> None:
        """Store the device to sample.

        Args:
            nvml: the module pynvml, initialized.
            handle: NVML's handle of the device.
            interval_s: the pause between two samples.
        """
        self._nvml = nvml
        self._handle = handle
        self._interval_s = interval_s
        self._samples: list[GpuSample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def without_throttled(self, block: Block) -> Block:
        """Return the block with its samples, and without the calls next to a throttled sample.

        Where every call was throttled (a GPU that is always at its power cap), the calls stay, and the record says that they were
        throttled.
        """
        ends_s = block.began_s + np.cumsum(block.times_ms) / 1000  # (calls,)
        samples = [s for s in list(self._samples) if block.began_s <= s.at_s <= ends_s[-1] + self._interval_s]
        throttled = np.zeros(len(ends_s), dtype=bool)
        for sample in samples:
            if sample.throttles:
                starts_s = ends_s - block.times_ms / 1000
                throttled |= (ends_s > sample.at_s - self._interval_s) & (starts_s < sample.at_s + self._interval_s)
        kept = block.times_ms if throttled.all() else block.times_ms[~throttled]
        return dataclasses.replace(
            block,
            times_ms=kept,
            samples=tuple(samples),
            throttled_calls=int(throttled.sum()),
            all_throttled=bool(throttled.all()),
        )

    def _run(self) -> None:
        while not self._stop.is_set():
            self._samples.append(self._sample())
            self._stop.wait(self._interval_s)

    def _sample(self) -> GpuSample:
        nvml, handle = self._nvml, self._handle
        reasons = int(self._query(_reasons(nvml), handle) or 0)
        power_mw = self._query(nvml.nvmlDeviceGetPowerUsage, handle)
        return GpuSample(
            at_s=time.perf_counter(),
            sm_clock_mhz=self._query(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            memory_clock_mhz=self._query(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
            temperature_c=self._query(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            power_w=None if power_mw is None else power_mw / 1000,
            throttles=tuple(name for bit, name in THROTTLES.items() if reasons & bit),
        )

    def _query(self, function: Any, *arguments: Any) -> float | None:
        """Return the value from NVML; None where this GPU or this driver does not support it."""
        try:
            return float(function(*arguments))
        except self._nvml.NVMLError:
            return None


def _reasons(nvml: Any) -> Any:
    """Return the function for the throttle reasons; driver 535 renamed it."""
    newer = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
    return newer or nvml.nvmlDeviceGetCurrentClocksThrottleReasons


@contextlib.contextmanager
def watching(device: Device) -> Iterator[GpuWatch | None]:
    """Watch torch's current GPU while the block runs; None on a CPU, and where nvidia-ml-py is not installed."""
    if device is not Device.CUDA or not deps.installed("pynvml"):
        yield None
        return
    import torch

    nvml = deps.require("pynvml", extra="gpu")
    nvml.nvmlInit()
    try:
        # By UUID: NVML counts all GPUs, torch those of CUDA_VISIBLE_DEVICES.
        uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
        with GpuWatch(nvml, nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")) as watch:
            yield watch
    finally:
        nvml.nvmlShutdown()


def conditions(blocks: Sequence[Block]) -> GpuConditions | None:
    """Return a summary of the samples of all blocks; None where there are no samples.

    The energy of a call is the mean power times the mean time of the counted calls, because these have no pause between them.
    """
    samples = [sample for block in blocks for sample in block.samples]
    if not samples:
        return None
    power_w = _known([s.power_w for s in samples])
    mean_ms = float(np.mean(np.concatenate([block.times_ms for block in blocks])))
    mean_power_w = float(np.mean(power_w)) if power_w else None
    temperatures = _known([s.temperature_c for s in samples])
    return GpuConditions(
        sm_clock_mhz=_median([s.sm_clock_mhz for s in samples]),
        memory_clock_mhz=_median([s.memory_clock_mhz for s in samples]),
        max_temperature_c=max(temperatures) if temperatures else None,
        mean_power_w=mean_power_w,
        energy_mj_per_inference=None if mean_power_w is None else mean_power_w * mean_ms,  # W x ms = mJ
        throttle_reasons=tuple(sorted({reason for sample in samples for reason in sample.throttles})),
        throttled_calls=sum(block.throttled_calls for block in blocks),
        throttled_calls_kept=sum(block.throttled_calls for block in blocks if block.all_throttled),
    )


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _median(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return float(np.median(known)) if known else None

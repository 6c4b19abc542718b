"""What is made of a GPU's samples, with a stand-in for NVML: no GPU has run this yet."""

import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from optkit import deps
from optkit.benchmark.gpu import GpuWatch, conditions, watching
from optkit.benchmark.timing import Block, GpuSample
from optkit.runners import Device

POWER_CAP, THERMAL, IDLE, USER_CLOCKS = 0x4, 0x20, 0x1, 0x2


class NvmlError(Exception):
    pass


class Nvml(SimpleNamespace):
    """A stand-in for pynvml that counts the queries."""

    NVMLError = NvmlError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = "sm", "memory", "gpu"

    def __init__(self, reasons: int = 0, power_mw: int | None = 300_000) -> None:
        super().__init__(asked=threading.Event())
        self.reasons = reasons
        self.power_mw = power_mw

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:  # noqa: N802 - NVML's own name
        return self.reasons

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802 - NVML's own name
        self.asked.set()
        if self.power_mw is None:
            raise NvmlError("not supported")
        return self.power_mw

    def nvmlDeviceGetClockInfo(self, handle: str, clock: str) -> int:  # noqa: N802 - NVML's own name
        return {"sm": 1980, "memory": 2619}[clock]

    def nvmlDeviceGetTemperature(self, handle: str, sensor: str) -> int:  # noqa: N802 - NVML's own name
        return 61


def sample(at_s: float, *throttles: str, power_w: float | None = 300.0) -> GpuSample:
    return GpuSample(at_s, 1980.0, 2619.0, 61.0, power_w, throttles)


def watched(*samples: GpuSample) -> GpuWatch:
    watch = GpuWatch(Nvml(), "handle", interval_s=0.02)
    watch._samples.extend(samples)
    return watch


def block(calls: int = 100, ms: float = 10.0) -> Block:
    """Return calls that begin at second 5."""
    return Block(np.full(calls, ms), dropped_calls=3, began_s=5.0)


@pytest.mark.parametrize(
    ("reasons", "seen"),
    [
        (POWER_CAP | THERMAL | IDLE, ("software power cap", "software thermal slowdown")),
        (IDLE | USER_CLOCKS, ()),
        (0, ()),
    ],
)
def test_it_samples_while_the_block_runs(reasons: int, seen: tuple[str, ...]) -> None:
    nvml = Nvml(reasons)
    with GpuWatch(nvml, "handle", interval_s=0.001) as watch:
        assert nvml.asked.wait(5)
    first = watch._samples[0]
    assert (first.sm_clock_mhz, first.memory_clock_mhz, first.temperature_c, first.power_w) == (1980, 2619, 61, 300)
    assert first.throttles == seen
    count = len(watch._samples)
    assert not watch._thread.is_alive()
    assert len(watch._samples) == count


def test_what_a_gpu_does_not_tell_is_none() -> None:
    assert GpuWatch(Nvml(power_mw=None), "handle")._sample().power_w is None


def test_an_older_driver_has_the_older_name() -> None:
    old = SimpleNamespace(
        **{name: getattr(Nvml(), name) for name in dir(Nvml) if name.startswith(("nvmlDevice", "NVML"))}
    )
    old.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: THERMAL
    del old.nvmlDeviceGetCurrentClocksEventReasons
    assert GpuWatch(old, "handle")._sample().throttles == ("software thermal slowdown",)


def test_calls_around_a_throttled_sample_are_dropped() -> None:
    found = watched(
        sample(5.1), sample(5.505, "hardware slowdown"), sample(9.0, "hardware slowdown")
    ).without_throttled(block())
    assert found.throttled_calls == 5  # those that touch 5.485 to 5.525 s, of 10 ms each
    assert len(found.times_ms) == 95
    assert len(found.samples) == 2  # the last one was taken after the block


def test_where_every_call_was_throttled_they_stay_and_are_marked() -> None:
    found = watched(sample(5.01, "software power cap")).without_throttled(block(calls=2))
    assert (len(found.times_ms), found.throttled_calls, found.all_throttled) == (2, 2, True)
    said = conditions([found])
    assert said is not None
    assert (said.throttled_calls, said.throttled_calls_kept) == (2, 2)
    assert said.throttle_reasons == ("software power cap",)


def test_conditions_are_of_all_blocks() -> None:
    found = [
        watched(sample(5.1, power_w=200.0), sample(5.2, power_w=400.0)).without_throttled(block()) for _ in range(2)
    ]
    said = conditions(found)
    assert said is not None
    assert (said.sm_clock_mhz, said.max_temperature_c, said.mean_power_w) == (1980, 61, 300)
    assert said.energy_mj_per_inference == pytest.approx(3000)  # 300 W for 10 ms
    assert (said.throttle_reasons, said.throttled_calls) == ((), 0)


def test_an_unknown_power_gives_no_energy() -> None:
    said = conditions([watched(sample(5.1, power_w=None)).without_throttled(block())])
    assert said is not None
    assert (said.mean_power_w, said.energy_mj_per_inference) == (None, None)


def test_on_a_cpu_nothing_is_watched_and_there_are_no_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with watching(Device.CPU) as watch:
        assert watch is None
    assert conditions([block()]) is None


def test_without_nvidia_ml_py_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Any = lambda name: False  # noqa: E731
    monkeypatch.setattr(deps, "installed", missing)
    with watching(Device.CUDA) as watch:
        assert watch is None

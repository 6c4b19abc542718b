"""Measuring: the timing loop, the comparison of artifacts, and the facts of the machine."""

from optkit.bench.compare import BenchSettings, bench_points, measure, speed_ups
from optkit.bench.machine import Machine, this_machine

__all__ = ["BenchSettings", "Machine", "bench_points", "measure", "speed_ups", "this_machine"]

"""Measuring: the timing loop, the comparison of artifacts, and the facts of the machine."""

from optkit.bench.compare import BenchSettings, bench_points, measure, speed_ups
from optkit.bench.machine import Machine, load_average, this_machine

__all__ = ["BenchSettings", "Machine", "bench_points", "load_average", "measure", "speed_ups", "this_machine"]

"""Measuring: the timing loop, the comparison of artifacts with its statistics, and the facts of the machine."""

from optkit.bench.compare import Measured, measure
from optkit.bench.machine import Machine, load_average, this_machine
from optkit.bench.self_test import SelfTest, self_test
from optkit.bench.settings import BenchSettings, bench_points

__all__ = [
    "BenchSettings",
    "Machine",
    "Measured",
    "SelfTest",
    "bench_points",
    "load_average",
    "measure",
    "self_test",
    "this_machine",
]

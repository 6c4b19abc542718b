"""The benchmark: the timing loop, the comparison of artifacts with its statistics, and the facts of the machine."""

from optkit.benchmark.compare import Measured, measure
from optkit.benchmark.machine import Machine, load_average, this_machine
from optkit.benchmark.self_test import SelfTest, self_test
from optkit.benchmark.settings import BenchSettings, bench_points

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

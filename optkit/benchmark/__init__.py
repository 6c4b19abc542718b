"""The benchmark: the timing loop, the comparison of artifacts with its statistics, and the facts of the machine.

settings        what a user may set; the batch sizes that are measured
timing          one block of calls
series          blocks in random order of all that is compared
compare         the comparison of artifacts
concurrency     several callers at once
statistics      percentiles, intervals, verdicts
summary         from blocks to records
bench_record, changes   the documents of a benchmark and of a comparison with an earlier run
sessions        the interval of a change between two runs
self_test       a model against a copy of itself
machine, processor, gpu     the machine, contention for its processors, clocks and throttling of its GPU
"""

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

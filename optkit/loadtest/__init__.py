"""Load on a running server: closed and open loops by two tools with one record, and what the figures say about batching.

target, settings        which model on which server, and how much load
values, payloads, prepare       the requests, as bytes
connection, http_connection, grpc_connection    one connection that sends and receives
loops           the closed loop and the open loop
job, asyncio_driver, perf_analyzer      one load, and the two tools that run it
counters        latencies and failures, counted alike for both tools
triton_statistics       what Triton says of the batches that it formed
sweep           a whole load test
knee, batching_advice   what its figures mean
load_record     the document that a load test writes
"""

from optkit.loadtest.batching_advice import advise
from optkit.loadtest.load_record import Advice, LoadPoint, LoadRecord
from optkit.loadtest.prepare import Source
from optkit.loadtest.settings import Arrivals, LoadSettings, Tool
from optkit.loadtest.sweep import load_test, with_advice
from optkit.loadtest.target import Target, parse_target

__all__ = [
    "Advice",
    "Arrivals",
    "LoadPoint",
    "LoadRecord",
    "LoadSettings",
    "Source",
    "Target",
    "Tool",
    "advise",
    "load_test",
    "parse_target",
    "with_advice",
]

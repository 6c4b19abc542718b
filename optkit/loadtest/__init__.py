"""Load tests of a running server: closed and open loops, two load generators with one record, and advice on dynamic batching."""

from optkit.loadtest.batching_advice import advise
from optkit.loadtest.prepare import Source
from optkit.loadtest.record import Advice, LoadPoint, LoadRecord
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

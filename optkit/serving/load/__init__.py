"""Load on a running server: closed and open loops by two tools with one record, and what the figures say about batching."""

from optkit.serving.load.advice import advise
from optkit.serving.load.prepare import Source
from optkit.serving.load.record import Advice, LoadPoint, LoadRecord
from optkit.serving.load.settings import Arrivals, LoadSettings, Tool
from optkit.serving.load.sweep import load_test, with_advice
from optkit.serving.load.target import Target, parse_target

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

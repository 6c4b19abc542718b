"""The parts of `benchmarks/int8_accuracy.py`."""

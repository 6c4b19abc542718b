"""The parts of benchmarks/calibration.py."""

"""What `benchmarks/int8_accuracy.py` is made of."""

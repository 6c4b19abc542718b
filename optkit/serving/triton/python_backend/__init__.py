"""Python functions as models for Triton's Python backend."""

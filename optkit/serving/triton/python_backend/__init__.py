"""Python functions as models of Triton's Python backend."""

"""A PyTorch module: where it comes from, what it takes and returns, and how it becomes a file."""

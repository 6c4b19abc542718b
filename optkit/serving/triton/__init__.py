"""A Triton model repository: its files, its configuration, its server, its clients."""

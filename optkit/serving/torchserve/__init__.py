"""A TorchServe archive: its files, its configuration, its handler, its server."""

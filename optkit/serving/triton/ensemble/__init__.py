"""Triton ensembles: packaging, and a check that runs them without a server."""

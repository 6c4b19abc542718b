"""Triton ensembles: written, and run without a server to prove them."""

"""From a PyTorch model to the fastest artifact that still gives the right answers."""

from optkit._version import __version__

__all__ = ["__version__"]

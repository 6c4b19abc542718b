"""What the tests of benchmark scripts share with others."""

from tests.tensorrt.conftest import linear

__all__ = ["linear"]

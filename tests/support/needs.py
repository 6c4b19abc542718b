"""What tests need beside Python packages, such as Java: where it is absent they skip, and in CI, which installs all of it, they fail."""

import os

import pytest

from optkit.benchmark import this_machine

# Whether INT8 weights need 7 bits to be exact here: x86 kernels without VNNI add products of 8 bits in 16. A command decides so itself,
# in `choose`; a stage that a test runs alone needs the setting.
NARROW = this_machine().vnni is False


def need(there: object, reason: str) -> None:
    """Skip the test with its reason when something is not there; with OPTKIT_NO_SKIP=1, as in CI, fail it."""
    if not there:
        (pytest.fail if os.environ.get("OPTKIT_NO_SKIP") == "1" else pytest.skip)(reason)

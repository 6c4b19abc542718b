"""What tests need beside Python packages, such as Java: where it is absent they skip, and in CI, which installs all of it, they fail."""

import os

import pytest


def need(there: object, reason: str) -> None:
    """Skip the test with its reason when something is not there; with OPTKIT_NO_SKIP=1, as in CI, fail it."""
    if not there:
        (pytest.fail if os.environ.get("OPTKIT_NO_SKIP") == "1" else pytest.skip)(reason)

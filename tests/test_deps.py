import sys

import numpy as np
import pytest

from optkit import deps
from optkit.errors import MissingDependency


def test_an_installed_module_is_returned() -> None:
    assert deps.require("json") is sys.modules["json"]


def test_a_missing_module_comes_with_the_line_to_type() -> None:
    with pytest.raises(
        MissingDependency, match=r"^no_such_module is not installed\. Run: pip install 'no_such_module'$"
    ):
        deps.require("no_such_module")
    with pytest.raises(MissingDependency, match=r"Run: pip install 'optkit\[tensorrt\]'$"):
        deps.require("no_such_module.inner", extra="tensorrt")


def test_looking_for_a_module_does_not_import_it() -> None:
    assert deps.installed("wave")
    assert not deps.installed("no_such_module")
    assert not deps.installed("no_such_module.inner")


def test_versions_are_those_installed() -> None:
    assert deps.version("no-such-distribution", "numpy") == np.__version__
    assert deps.version("no-such-distribution") is None
    assert "optkit" in deps.built_with()

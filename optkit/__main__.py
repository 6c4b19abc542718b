"""`python -m optkit`."""

import os
import sys

# `python -m` puts the current folder first, where a folder `triton/` of the user's would stand in for the package that torch imports.
if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):  # noqa: PTH109 - as Python has written it
    del sys.path[0]

from optkit.cli import main

main()

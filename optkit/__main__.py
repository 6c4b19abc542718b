"""`python -m optkit`, and where the command `optkit` begins."""

import os
import sys
from typing import NoReturn

from optkit.errors import interrupted


def start() -> NoReturn:
    """Import and run the command line; Ctrl-C during the imports ends it like Ctrl-C later."""
    try:
        from optkit.cli import start

        start()
    except Exception as e:
        if interrupted(e):
            sys.exit(130)
        raise
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    # `python -m` puts the current folder first, where a folder `triton/` of the user's would stand in for the package that torch imports.
    if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):  # noqa: PTH109 - as Python has written it
        del sys.path[0]
    start()

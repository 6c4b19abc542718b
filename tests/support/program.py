"""A generated client run as its user runs it."""

import subprocess
import sys


def program(folder, *arguments):
    """Run a client with an interpreter that cannot see optkit's folder or this one."""
    command = [sys.executable, "-W", "error", str(folder / "client.py"), *arguments]
    return subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, timeout=120)

"""The user's own Python: `file.py:name` and `package.module:name`, found, hashed and imported."""

from optkit.user_code.find_model import the_model
from optkit.user_code.lines import current_line, describe, last_line_in
from optkit.user_code.loader import running
from optkit.user_code.targets import (
    absolute_target,
    code_files,
    code_sha256,
    defines,
    load,
    module_name,
    split_target,
    target_fault,
)

__all__ = [
    "absolute_target",
    "code_files",
    "code_sha256",
    "current_line",
    "defines",
    "describe",
    "last_line_in",
    "load",
    "module_name",
    "running",
    "split_target",
    "target_fault",
    "the_model",
]

"""The user's Python code: finding, hashing and importing `file.py:name` and `package.module:name`."""

from optkit.user_code.find_model import the_model
from optkit.user_code.in_memory import (
    PREFIX,
    function_sha256,
    in_memory,
    in_memory_fault,
    is_in_memory,
    object_in_memory,
)
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
    "PREFIX",
    "absolute_target",
    "code_files",
    "code_sha256",
    "current_line",
    "defines",
    "describe",
    "function_sha256",
    "in_memory",
    "in_memory_fault",
    "is_in_memory",
    "last_line_in",
    "load",
    "module_name",
    "object_in_memory",
    "running",
    "split_target",
    "target_fault",
    "the_model",
]

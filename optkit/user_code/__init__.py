"""The user's Python code: `file.py:name` and `package.module:name`, and objects in memory.

targets         what a target names: its files, their hash, the object itself
in_memory       objects of the caller's, which have a target while a call runs
files, neighbours       the files that a target consists of, and the rules by which they find each other
loader          imports them: the user's files see their neighbours first, libraries never do
watch, reads    what the user's code reads while it runs: files, variables, packages; what of it has changed
lines           the user's line in an error
find_model      which model a file defines, if no name is given
"""

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
from optkit.user_code.reads import Reads, changed, changed_here, changes, reads, reads_in
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
from optkit.user_code.watch import recording, written_by_optkit

__all__ = [
    "PREFIX",
    "Reads",
    "absolute_target",
    "changed",
    "changed_here",
    "changes",
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
    "reads",
    "reads_in",
    "recording",
    "running",
    "split_target",
    "target_fault",
    "the_model",
    "written_by_optkit",
]

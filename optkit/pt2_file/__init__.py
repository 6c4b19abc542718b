"""PyTorch's .pt2 archives, read without torch: loading a compiled package executes its native code.

archive         what an archive holds: a captured program, or compiled code; its members and their facts
native_code     what a shared library needs of the machine that loads it
"""

from optkit.pt2_file.archive import PackageFacts, check_members, native_code_fault, read_package

__all__ = ["PackageFacts", "check_members", "native_code_fault", "read_package"]

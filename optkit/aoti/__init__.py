"""AOTInductor: torch's compiler ahead of time, which runs in processes of its own.

host            what decides here whether compiled code runs, and the C++ compiler
process         the parent's side: a job with a time limit, and the death of its process as an error
worker          the child's side: compiles a captured program, or loads and calls a package; imports nothing of optkit
"""

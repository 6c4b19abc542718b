"""What optkit needs of the operating system, so that a process that is killed leaves nothing behind.

lock            one writer at a time for an output folder or file
temporary       temporary files and folders, and the removal of those that a killed process left
child           a child process, with its output, time limit and end
supervisor      a command in a child process, whose death is reported in plain words
space           free disk space, before much is written
"""

"""What optkit needs of the operating system, so that a process that is killed leaves nothing behind.

lock            one writer at a time for an output folder or file
temporary       temporary files and folders, and the removal of those that a killed process left
space           free disk space, before much is written
"""

"""What comes from a file is not believed.

paths           one rule for the name of a file that another file gives, before it is opened, hashed, copied or deleted
"""

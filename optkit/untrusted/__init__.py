"""What comes from a file is not believed.

names           what a name of a tensor, a dimension or a step may be
console         how a text is drawn on a terminal: as text, whatever it holds
quoting         texts written where they are only text: on a line, in YAML, in a command, in Python
documents       reading of YAML and JSON, with limits on size, depth, aliases and values
yaml_loader     the loader behind it
reading         a file read into memory, up to a limit
archives        zip files: their members' number and sizes, and the arrays of a .npz file
paths           one rule for the name of a file that another file gives, before it is opened, hashed, copied or deleted
"""

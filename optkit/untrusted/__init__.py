"""What comes from a file is not believed.

names           what a name of a tensor, a dimension or a step may be
console         how a text is drawn on a terminal: as text, whatever it holds
quoting         texts written where they are only text: on a line, in YAML, in a command, in Python
paths           one rule for the name of a file that another file gives, before it is opened, hashed, copied or deleted
"""

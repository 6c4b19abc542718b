"""Texts of others written where they are only text: on a line of a terminal, in YAML, in a command to paste, in Python."""

import keyword
import math
import shlex


def visible(text: str) -> str:
    """Return a text on one line with an escape for what cannot be printed: no control sequence, no line end, nothing hidden."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def yaml_text(text: str) -> str:
    """Return a text as YAML on one line: as it stands where that is read back as this text, else quoted."""
    import yaml

    plain = text.isprintable()  # else in double quotes, which alone have escapes
    dumped: str = yaml.safe_dump(text, allow_unicode=plain, width=math.inf, default_style=None if plain else '"')
    return dumped.removesuffix("...\n").removesuffix("\n")


def shell_line(*words: object) -> str:
    """Return a command that a person can paste into a shell; each word arrives as it is."""
    return shlex.join(map(str, words))


def is_python_name(text: str) -> bool:
    """Say whether a text can stand in Python as the name of a variable, as it is: a letter outside ASCII may become another one."""
    return text.isascii() and text.isidentifier() and not keyword.iskeyword(text) and text != "__debug__"

"""What names may be that come from a file or from a person: those of tensors, of dimensions and of steps.

A name reaches generated Python, configurations, pages, terminals and commands. What is dangerous or invisible in all of them is refused
when the name is read. Everything else, such as quotes, backslashes and markup, belongs to the name and is quoted where it is written.
"""

import re
from typing import Annotated

from pydantic import AfterValidator

LONGEST_NAME = 500
_STEP = re.compile(r"\w[\w .+-]{0,99}")


def name_text_fault(text: str) -> str | None:
    """Return why a text cannot name a tensor or a dimension; None when it can.

    Printable are letters, marks, digits, punctuation, symbols and the ASCII space, as `str.isprintable` has it: no control characters, no
    line ends, nothing that is invisible or turns the direction of the text.
    """
    if not text:
        return "the name is empty; expected printable characters"
    if len(text) > LONGEST_NAME:
        return f"the name {text[:40]!a}... has {len(text)} characters; expected at most {LONGEST_NAME}"
    hidden = next((character for character in text if not character.isprintable()), None)
    if hidden is not None:
        shown = text if len(text) <= 100 else f"{text[:100]}..."
        return f"the name {shown!a} holds U+{ord(hidden):04X}; expected printable characters"
    return None


def step_name_fault(name: str) -> str | None:
    """Return why a text cannot name a step, which has a folder of that name; None when it can."""
    if _STEP.fullmatch(name):
        return None
    return f"{name!a} cannot name a step; expected up to 100 letters, digits, '_', '.', '+', '-' and spaces, with a letter, a digit or '_' first"


def _checked_text(text: str) -> str:
    if fault := name_text_fault(text):
        raise ValueError(fault)
    return text


def _checked_step(name: str) -> str:
    if fault := step_name_fault(name):
        raise ValueError(fault)
    return name


TensorName = Annotated[str, AfterValidator(_checked_text)]  # of a tensor or a dimension
StepName = Annotated[str, AfterValidator(_checked_step)]

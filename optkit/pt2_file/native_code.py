"""What a shared library needs of the machine that loads it, from its ELF file.

pyelftools reads it: it is one wheel of 200 kB in pure Python, while `readelf` belongs to binutils, which a machine that only runs packages
does not have.
"""

import re
from typing import IO

from optkit.record import Record

_GLIBC = re.compile(r"GLIBC_(\d+(?:\.\d+)*)")


class NativeCode(Record):
    """The newest symbol of the C library that it uses, as `2.34`, and the libraries that it needs."""

    glibc: str | None
    needed: tuple[str, ...]


def read_native_code(file: IO[bytes]) -> NativeCode:
    """Read a shared library, which is not loaded.

    Raises:
        ValueError: it is no ELF file, or a damaged one.
    """
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile
    from elftools.elf.gnuversions import GNUVerNeedSection

    try:
        elf = ELFFile(file)
        sections = list(elf.iter_sections())
        tags = [tag for part in sections if isinstance(part, DynamicSection) for tag in part.iter_tags("DT_NEEDED")]
        needed = tuple(vars(tag)["needed"] for tag in tags)  # an attribute that pyelftools sets
        versions = [part for part in sections if isinstance(part, GNUVerNeedSection)]
        names = [one.name for part in versions for _, symbols in part.iter_versions() for one in symbols]
    except (ELFError, ConstructError, UnicodeError, ValueError, KeyError, AttributeError, TypeError) as e:  # of damage
        raise ValueError(f"is no ELF file that can be read ({e})") from e
    found = [match[1] for name in names if (match := _GLIBC.fullmatch(name))]
    return NativeCode(glibc=max(found, key=version_numbers, default=None), needed=needed)


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, for comparison."""
    return tuple(int(number) for number in re.findall(r"\d+", version))

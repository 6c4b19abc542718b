"""Processor time, to find blocks in which the threads had to wait for other processes."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class ProcessorTime:
    """The time that the threads of this process have run so far, and the time that they were ready but had no processor, in ns."""

    ran_ns: int
    waited_ns: int

    @classmethod
    def now(cls) -> Self | None:
        """Return the sums over all threads from Linux's scheduler; None where the system does not report them."""
        if sys.platform != "linux":
            return None
        ran_ns = waited_ns = 0
        try:
            for thread in Path("/proc/self/task").iterdir():
                ran, waited, _ = (thread / "schedstat").read_text().split()
                ran_ns, waited_ns = ran_ns + int(ran), waited_ns + int(waited)
        except (OSError, ValueError):  # no such statistics, or a thread that ended meanwhile
            return None
        return cls(ran_ns, waited_ns)

    def waited_since(self, before: Self) -> float:
        """Return the share of the time since `before` in which ready threads had to wait (0 to 1)."""
        waited, ran = self.waited_ns - before.waited_ns, self.ran_ns - before.ran_ns
        return waited / (waited + ran) if waited > 0 and ran >= 0 else 0.0

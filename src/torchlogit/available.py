"""How much memory there is to use, and sizes as people write them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from pathlib import Path

_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([KMGT]?)(I?)B?", re.IGNORECASE)
# The limit and the use of a container's memory: control groups of version 2, then 1.
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_memory() -> int:
    """Bytes that this process may still take: the machine's, or its container's if that has less."""
    found = [_machine()]
    for limit, used in _GROUPS:
        most, now = _number(limit), _number(used)
        if most is not None and now is not None:
            found.append(max(most - now, 0))
    return min(found)


def memory_budget() -> int:
    """Bytes that a fit may take where nothing else is said: half of what there is.

    Processes that a launcher has started on the same machine have equal shares of it (``LOCAL_WORLD_SIZE``).
    """
    return available_memory() // 2 // processes_here()


def processes_here() -> int:
    """How many processes a launcher has started on this machine (``LOCAL_WORLD_SIZE``), this one among them."""
    processes = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(int(processes) if processes.isdigit() else 1, 1)


def _machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) // 2
    except (AttributeError, ValueError, OSError):
        return 4 << 30


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):  # no such group, or one without a limit ("max")
        return None


def parsed_size(text: str) -> int | None:
    """Bytes: '2GB', '500 MB', '1GiB', '65536'; None for what is no size.

    Examples
    --------
    >>> parsed_size("2GB"), parsed_size("1.5GiB"), parsed_size("500m"), parsed_size("many")
    (2000000000, 1610612736, 500000000, None)
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or (match[3] and not match[2]):
        return None
    unit = _UNITS[match[2].upper()]
    if match[3]:
        unit = 1024 ** "KMGT".index(match[2].upper()) * 1024
    return int(float(match[1]) * unit)


def give_back_free_memory() -> None:
    """Return to the system what has been freed but kept for later: blocks of many sizes leave gaps between them.

    Where the C library is not GNU's there is nothing to do, and nothing is done.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)

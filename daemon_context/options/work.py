"""Functions that a daemon is to run: what would do nothing when it is called is refused before the
start, as in the daemon nobody would see that nothing is done.
"""

from __future__ import annotations

import sys

from ..errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Flags of code objects; `inspect` costs more to import than a whole start.
GENERATOR, COROUTINE, ITERABLE_COROUTINE, ASYNC_GENERATOR = 0x20, 0x80, 0x100, 0x200


def require_plain(name: str, function: Any) -> None:
    """Calling the function does its work.

    :param name: of the function, in words
    :raises OptionError: it would only make a coroutine or a generator
    """
    flags = getattr(_code(function), "co_flags", 0)
    if flags & (COROUTINE | ITERABLE_COROUTINE):
        what, instead = "a coroutine function", "calls asyncio.run()"
    elif flags & (GENERATOR | ASYNC_GENERATOR):
        what, instead = "a generator function", "goes through the generator"
    else:
        return
    raise OptionError(
        f"{name} is {what}, of which a call does nothing; let it be a plain function that {instead}"
    )


def _code(function: Any) -> Any:
    """The code that a call runs; None of what is not in Python."""
    partial = getattr(sys.modules.get("functools"), "partial", ())
    while isinstance(function, partial):
        function = function.func
    called = getattr(type(function), "__call__", None)  # noqa: B004
    return getattr(function, "__code__", None) or getattr(called, "__code__", None)

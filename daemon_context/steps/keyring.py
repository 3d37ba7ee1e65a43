"""A stock step that can be put in: keyrings(7). Not one of `DEFAULT_STEPS`, as it loads ``ctypes``,
and as a filter may forbid the call.
"""

from __future__ import annotations

import ctypes
import os
import sys

from ..errors import DaemonOSEnvironmentError
from ..sequence.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..options.frozen import Options
    from ..sequence import Walk

# keyctl(2) has no function in libc; numbers from the kernel's asm/unistd.h, of 64-bit programs.
CALLS = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "ppc64le": 271, "s390x": 280}
GET_KEYRING_ID, JOIN_SESSION_KEYRING = 0, 1
SESSION_KEYRING = -3


class NewSessionKeyring(Step):
    """keyctl(2): a session keyring of its own. The launching user's goes along with every change of
    owner, and whoever has it has the keys in it, root's as well.

    Put it in after ``change-owner``. It loads ``ctypes`` when it is made. In the foreground,
    threads that run already keep the old one.
    """

    name = "new-session-keyring"
    at_once = True
    touches = frozenset({"session keyring"})
    after = {
        "detach": "the launcher goes on with its keys",
        "change-owner": "the new keyring is to belong to the daemon's user",
    }
    remedy = "leave the step out where keys are not in use"

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def describe(self, options: Options) -> str:
        return "join a new session keyring"

    def check(self, walk: Walk) -> None:
        """Ask for the number of the one that there is: without keyrings, or behind a filter as
        Docker's, that fails as well.
        """
        try:
            self._keyctl(GET_KEYRING_ID, SESSION_KEYRING)
        except OSError as error:
            raise DaemonOSEnvironmentError(
                f"cannot {self.describe(walk.options)}: {error.strerror}; {self.remedy}",
                errno=error.errno,
            ) from error

    def apply(self, walk: Walk) -> None:
        self._keyctl(JOIN_SESSION_KEYRING, 0)

    def _keyctl(self, command: int, argument: int) -> None:
        number = CALLS.get(os.uname().machine)
        if number is None or sys.maxsize < 1 << 32:
            raise OSError(38, os.strerror(38))  # ENOSYS: its number is not known here
        call = self._libc.syscall
        if call(*map(ctypes.c_long, (number, command, argument, 0, 0, 0))) == -1:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

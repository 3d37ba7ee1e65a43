"""Programs beside Python that tests run: a test whose program is not here is skipped, and told.

They are listed where the CI run installs them, so that there is one list.
"""

from __future__ import annotations

import errno
import os
import re
import shutil

from tests.helpers import support

SYSTEM = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"


def packages() -> dict[str, str]:
    """Which of Debian's packages has which command."""
    text = (support.ROOT / ".ci/run").read_text()
    needed = re.search(r"^NEEDED=\((.*?)\)$", text, re.M | re.S)
    assert needed
    return dict(entry.split(":") for entry in needed[1].split())


def find(command: str) -> str:
    """Its path, also where system programs are; a test that finds none is skipped."""
    path = shutil.which(command, path=SYSTEM)
    if path is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command)
    return path


def is_missing(command: str) -> bool:
    """Whether it is one of these programs, and is not on this machine."""
    return command in packages() and shutil.which(command, path=SYSTEM) is None


def missing_behind(error: BaseException | None) -> str:
    """The program that was to be run and is not here; '' if that is not what went wrong."""
    while error is not None:
        if isinstance(error, FileNotFoundError):
            name = os.path.basename(os.fsdecode(error.filename or ""))
            if is_missing(name):
                return name
        error = error.__cause__ or error.__context__
    return ""


def how_to_install(commands: set[str]) -> str:
    """A line for the end of a run."""
    wanted = " ".join(sorted({packages()[command] for command in commands}))
    return f"not here: {', '.join(sorted(commands))}; on Debian: apt-get install {wanted}"

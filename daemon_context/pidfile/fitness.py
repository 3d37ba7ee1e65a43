"""What may be a pid file, looked at without opening it: opening a device or a FIFO is felt at its
other end.

Whether a fit file may be opened, locking it will show.
"""

from __future__ import annotations

import errno
import os
import stat

from .locks import require_support

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import DaemonError


def require_sense(timeout: object) -> None:
    """What is wrong whatever is there.

    :raises OptionError: the timeout can't be one
    """
    require_support()
    if not isinstance(timeout, (int, float, type(None))):
        from ..errors import refuse

        expected = "None or a number of seconds to wait for the pid file's lock"
        raise refuse("timeout", timeout, expected)


def require_fit_place(path: str, file: str, daemon_uid: int) -> None:
    """What is there is fit; or it is nothing, and a file can be made.

    :param path: the pid file
    :param file: the same, or the lock file beside it
    :raises PidFileError: says what is there instead
    """
    try:
        found = os.lstat(file)
    except (FileNotFoundError, NotADirectoryError):
        _require_directory(path, os.path.dirname(path))
    except OSError as error:
        raise failed(path, error) from error
    else:
        require_fit(path, file, found, daemon_uid)


def require_fit(path: str, file: str, found: os.stat_result, daemon_uid: int) -> None:
    """It is a regular file with one name, of nobody who could misuse it.

    :raises PidFileError: it is not
    """
    users = {os.geteuid(), os.getuid(), 0, daemon_uid}
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or found.st_uid not in users:
        from .refusals import unfit

        raise unfit(path, file, found)


def _require_directory(path: str, directory: str) -> None:
    try:
        found = os.stat(directory)
    except OSError as error:
        raise failed(path, error, where=f" (its directory {directory!r})") from error
    if not stat.S_ISDIR(found.st_mode):
        raise _unusable(path, f"{directory!r} is not a directory", errno.ENOTDIR)
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        read_only = os.statvfs(directory).f_flag & os.ST_RDONLY
        number = errno.EROFS if read_only else errno.EACCES
        raise _unusable(path, f"{os.strerror(number)} (its directory {directory!r})", number)


def failed(path: str, error: OSError, verb: str = "lock", where: str = "") -> DaemonError:
    """The operating system refused something that the pid file needs."""
    return _unusable(path, (error.strerror or str(error)) + where, error.errno, verb)


def _unusable(path: str, why: str, number: int | None, verb: str = "lock") -> DaemonError:
    from .refusals import unusable

    return unusable(path, why, number, verb)

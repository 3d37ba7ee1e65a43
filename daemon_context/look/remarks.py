"""What will surprise: each remark is a sentence with its remedy, for `explain`."""

from __future__ import annotations

import os
import re
import stat
import sys

from ..pidfile.holder import Holder, let_go
from ..pidfile.refusals import unlocked
from ..sequence.keeping import asked
from ..steps.past import complaints
from ..system import same_program, signal
from ..system.descriptors import KINDS, open_numbers
from ..system.owners import Owners
from ..system.threads import live_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..options.frozen import Options
    from ..sequence.step import Steps

ESCAPED = re.compile(r"\\([0-7]{3})")
OVERLAID = {"overlay", "aufs", "squashfs"}
REMOVABLE = {"vfat", "exfat", "iso9660", "udf", "ntfs", "ntfs3"}


def remarks(options: Options, steps: Steps) -> list[str]:
    """All that apply to these options, in this process, now."""
    return [
        *_orphans(options, steps),
        *_log_handlers(options),
        *_files(options),
        *_past(options),
        *_unlocked(options),
        *_open_umask(options),
        *_threads(options),
        *_children(options),
        *_directory(options),
    ]


def _log_handlers(options: Options) -> Iterator[str]:
    for fd in _logged_to():
        mode = os.fstat(fd).st_mode
        fate = _fate(fd, mode, options)
        if fate:
            yield (
                f"a log handler writes to {_what(fd, mode)} (descriptor {fd}), which {fate} in the "
                "daemon: log to a file or to syslog"
            )


def _logged_to() -> list[int]:
    """Descriptors of log handlers; not of the one that logging has for those who set up none."""
    logging = sys.modules.get("logging")
    found = set()
    for reference in getattr(logging, "_handlerList", ()):
        handler = reference()
        try:
            fd = handler.stream.fileno()
            os.fstat(fd)
        except Exception:  # no stream, closed, in memory, or a user's proxy
            continue
        if handler is not logging.lastResort:  # type: ignore[union-attr]
            found.add(fd)
    return sorted(found)


def _fate(fd: int, mode: int, options: Options) -> str:
    """What happens to a descriptor that a log handler writes to; '' if nothing bad does."""
    if os.fstat(fd).st_rdev == os.stat(os.devnull).st_rdev:
        return ""
    if fd < 3:
        return "goes to /dev/null" if options.streams[fd].kind in ("null", "object") else ""
    follows = stat.S_ISREG(mode) or stat.S_ISSOCK(mode)
    kept = fd in options.files_preserve or (follows and options.preserve_logging)
    return "" if kept else "is closed"


def _what(fd: int, mode: int) -> str:
    if os.isatty(fd):
        return "a terminal"
    return f"a {KINDS.get(stat.S_IFMT(mode), 'descriptor')}"


def _files(options: Options) -> Iterator[str]:
    """Regular files that are open for writing, and that the daemon closes."""
    owners = Owners(open_numbers() - asked(options, os.getpid()))
    logs = owners.logs() if options.preserve_logging else set()
    for fd in sorted(owners.written_files() - logs - {0, 1, 2, *_logged_to()}):
        name = getattr(owners.raw[fd][0], "name", fd)
        yield (
            f"the file {name!r} (descriptor {fd}) is open for writing, and the daemon closes it: "
            "open it after open(), or for appending ('a') if it is a log, or name it in "
            "files_preserve"
        )


def _past(options: Options) -> Iterator[str]:
    others = open_numbers() - asked(options, os.getpid())
    return complaints(others) if options.detach_process else iter(())


def _unlocked(options: Options) -> Iterator[str]:
    """A pid file of another library's daemon, which a start would take over."""
    lock = options.pidfile_lock
    if lock is None or lock.is_locked():
        return
    named = let_go(lock.path) or Holder("free", lock.read_pid())
    command = None if named.pid is None else same_program(named.pid)
    if command is not None:
        yield unlocked(lock.path, named, command)


def _open_umask(options: Options) -> Iterator[str]:
    if options.umask is not None and options.umask & 0o002 == 0:
        yield (
            f"the umask will be {options.umask:03o}, so that files the daemon creates may be "
            "writable by everybody: set umask=0o022"
        )


def _threads(options: Options) -> Iterator[str]:
    names = live_threads() if options.detach_process else []
    if names:
        yield (
            f"threads run that will not exist in the daemon: {', '.join(names)}; "
            "start them after open()"
        )


def _children(options: Options) -> Iterator[str]:
    given = options.signal_map.get(signal.SIGCHLD, signal.getsignal(signal.SIGCHLD))
    if given == signal.SIG_IGN:
        yield (
            "SIGCHLD is ignored, so that the kernel discards how children ended: subprocess "
            "reports status 0 for every one; leave it at its default"
        )


def _orphans(options: Options, steps: Steps) -> Iterator[str]:
    if os.getpid() == 1 and not options.detach_process and "reap-children" not in steps:
        yield (
            "this is process 1, whose adopted children stay zombies: put ReapChildren() after "
            "install-signals, or start the container with an init (docker run --init)"
        )


def _directory(options: Options) -> Iterator[str]:
    path = options.working_directory
    if path is None:
        path = "/" if options.chroot_directory else os.curdir
    if isinstance(path, int):
        path = f"/proc/self/fd/{path}"
    if options.chroot_directory:
        path = options.chroot_directory + path
    path = os.path.realpath(path)
    point, kind, device = mount_of(path, _mounts())
    if point == "/":
        return  # every process keeps the root, which is an overlay in containers
    if kind in OVERLAID:
        yield f"the working directory {path!r} is on {kind}, an overlaid file system: {LATER}"
    elif kind in REMOVABLE or _is_removable(device):
        yield f"the working directory {path!r} is on a removable file system ({kind}): {LATER}"


LATER = "it can't be unmounted while the daemon runs"


def _mounts() -> str:
    try:
        # The kernel escapes what would break a line; other bytes are those of the names.
        with open("/proc/self/mountinfo", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def mount_of(path: str, mounts: str) -> tuple[str, str, str]:
    """Mount point, type, and major:minor, of the file system that holds the path.

    :param path: absolute, without symlinks
    :param mounts: the text of ``/proc/PID/mountinfo`` (proc_pid_mountinfo(5))
    """
    found = ("", "", "")
    for line in mounts.rstrip("\n").split("\n") if mounts else ():
        fields, _, rest = line.partition(" - ")
        _, _, device, _, point = fields.split(" ")[:5]
        point = ESCAPED.sub(lambda match: chr(int(match[1], 8)), point)
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # Of mounts on one point the last one is on top.
        if inside and len(point) >= len(found[0]):
            found = (point, rest.split(" ")[0], device)
    return found


def _is_removable(device: str) -> bool:
    # A partition has the flag in the directory of its disk.
    for path in ("removable", "../removable"):
        try:
            with open(f"/sys/dev/block/{device}/{path}") as file:
                return file.read().strip() == "1"
        except OSError:
            continue
    return False

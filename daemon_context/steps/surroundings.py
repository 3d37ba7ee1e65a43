"""What the process takes for granted: root, umask, directory, owner, core limit, signals."""

from __future__ import annotations

import os
import resource
import stat

from ..errors import DaemonOSEnvironmentError
from ..sequence.step import Step
from ..system import block_signals, signal, signal_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..options.frozen import Options
    from ..sequence import Walk


def require_directory(phrase: str, path: str | int, remedy: str) -> None:
    """Preflight for a directory that will be entered.

    :raises DaemonOSEnvironmentError: it is not there, no directory, or not to be entered
    """
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            raise NotADirectoryError(20, os.strerror(20))
        if not _may_enter(path):
            raise PermissionError(13, os.strerror(13))
    except OSError as error:
        raise DaemonOSEnvironmentError(
            f"cannot {phrase}: {error.strerror}; {remedy}",
            errno=error.errno,
            path=path if isinstance(path, str) else None,
        ) from error


def _may_enter(path: str | int) -> bool:
    """Of a descriptor only fchdir(2) tells, which may be tried in the daemon alone."""
    effective = os.access in os.supports_effective_ids
    return isinstance(path, int) or os.access(path, os.X_OK, effective_ids=effective)


class ChangeRoot(Step):
    """chroot(2). Users, groups and paths have been looked up before."""

    name = "change-root"
    at_once = True
    touches = frozenset({"root", "cwd", "descriptors"})
    after = {
        "detach": "the session leader must be able to undo what the launcher did, outside the root",
        "lock-pidfile": "the pid file is outside the new root",
        "open-streams": "log files and /dev/null are outside the new root",
        "close-descriptors": "/proc, which lists the descriptors, is out of reach in the new root",
    }

    def needed(self, options: Options) -> bool:
        return options.chroot_directory is not None

    def describe(self, options: Options) -> str:
        return f"change the root directory to {options.chroot_directory!r}"

    def why_not(self, options: Options) -> str:
        return "no chroot_directory is given"

    def check(self, walk: Walk) -> None:
        path = walk.options.chroot_directory or ""
        phrase = self.describe(walk.options)
        require_directory(phrase, path, "set chroot_directory to a directory")
        from ..system.capabilities import CAP_SYS_CHROOT, has_capability  # loaded with the option

        if not has_capability(CAP_SYS_CHROOT):
            raise DaemonOSEnvironmentError(
                f"cannot {phrase}: {os.strerror(1)}; only root (CAP_SYS_CHROOT) can",
                errno=1,
                path=path,
            )

    def apply(self, walk: Walk) -> None:
        if walk.options.owner_changes:
            _look(walk)  # what change-owner asks is out of reach in the new root
        os.chroot(walk.options.chroot_directory or "")
        os.chdir("/")  # the old working directory would be a way out


class SetUmask(Step):
    """umask(2)."""

    name = "set-umask"
    at_once = True
    touches = frozenset({"umask"})

    def needed(self, options: Options) -> bool:
        return options.umask is not None

    def describe(self, options: Options) -> str:
        return f"set the umask to {options.umask:03o}"

    def why_not(self, options: Options) -> str:
        return "umask=None leaves it as it is"

    def apply(self, walk: Walk) -> int:
        return os.umask(walk.options.umask or 0)

    def undo(self, walk: Walk, memory: int) -> None:
        os.umask(memory)


class ChangeDirectory(Step):
    """chdir(2): a daemon must not keep a file system from being unmounted."""

    name = "change-directory"
    at_once = True
    touches = frozenset({"cwd"})
    after = {"change-root": "with a chroot the directory is one inside the new root"}
    remedy = "set working_directory to a directory that exists and may be entered"

    def needed(self, options: Options) -> bool:
        return options.working_directory is not None

    def describe(self, options: Options) -> str:
        directory = options.working_directory
        if isinstance(directory, int):
            return f"change the working directory to that of descriptor {directory}"
        where = " in the new root" if options.chroot_directory is not None else ""
        return f"change the working directory to {directory!r}{where}"

    def why_not(self, options: Options) -> str:
        return "working_directory=None leaves it as it is"

    def check(self, walk: Walk) -> None:
        options = walk.options
        path = "" if options.working_directory is None else options.working_directory
        if isinstance(path, str) and options.chroot_directory and "change-root" in walk.steps:
            path = os.path.join(options.chroot_directory, path.lstrip("/"))
            if _has_symlink(options.chroot_directory, path):
                return  # it leads elsewhere in the new root: only there it can be told
        require_directory(self.describe(options), path, self.remedy)

    def apply(self, walk: Walk) -> str | None:
        before = _working_directory()
        directory = walk.options.working_directory
        os.chdir("" if directory is None else directory)
        return before

    def undo(self, walk: Walk, memory: str | None) -> None:
        if memory is not None:
            os.chdir(memory)


def _has_symlink(root: str, path: str) -> bool:
    """Whether a part of the path below the root is a symlink."""
    return os.path.relpath(os.path.realpath(path), os.path.realpath(root)) != os.path.relpath(
        path, root
    )


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return None


class ChangeOwner(Step):
    """Groups first, then gid, then uid, because after the uid no privilege is left to do it.

    Real, effective and saved ids are all set; then regaining root is tried, and must fail.
    """

    name = "change-owner"
    touches = frozenset({"uid", "gid", "groups", "environment", "descriptors"})
    after = {
        "detach": "only the launcher's own user may undo what the launcher did",
        "change-root": "only root can change the root directory",
        "lock-pidfile": "the pid file is opened with the launching user's rights",
        "write-pidfile": "who the daemon is, only the launching user may write",
        "open-streams": "log files are opened with the launching user's rights",
    }

    def needed(self, options: Options) -> bool:
        return options.owner_changes

    def describe(self, options: Options) -> str:
        name = f" ({options.user})" if options.user else ""
        groups = "as they are" if options.groups is None else _numbers(options.groups)
        return f"change the owner to uid {options.uid}{name}, gid {options.gid}, groups {groups}"

    def why_not(self, options: Options) -> str:
        return f"the process has uid {options.uid} and gid {options.gid} already"

    def check(self, walk: Walk) -> None:
        from ..options.owner import require_privilege, require_sight

        require_privilege(walk.options, self.describe(walk.options))
        require_sight(walk.options, self.describe(walk.options))

    def apply(self, walk: Walk) -> None:
        from ..options.owner import become

        become(walk.options, _look(walk))


def _look(walk: Walk) -> list[int]:
    if walk.statuses is None:
        from ..options.owner import look

        walk.statuses = look(walk.options, walk.acquire)
    return walk.statuses


class PreventCore(Step):
    """setrlimit(2): a core dump of a privileged daemon would hold its secrets (PEP 3143)."""

    name = "prevent-core"
    at_once = True
    touches = frozenset({"core"})

    def needed(self, options: Options) -> bool:
        return options.prevent_core

    def describe(self, options: Options) -> str:
        return "prevent core dumps"

    def why_not(self, options: Options) -> str:
        return "prevent_core=False was given"

    def apply(self, walk: Walk) -> None:
        try:
            # The hard limit too, or a handler could raise it again; so there is no undo.
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        except ValueError as error:  # what the module makes of EPERM, as in a sandbox
            raise PermissionError(1, os.strerror(1)) from error


class InstallSignals(Step):
    """The signal map: handlers are installed, and what the map names is unblocked."""

    name = "install-signals"
    touches = frozenset({"signals", "signal mask"})

    def needed(self, options: Options) -> bool:
        return bool(options.signal_map)

    def describe(self, options: Options) -> str:
        return f"set the signals: {_in_words(options.signal_map)}"

    def why_not(self, options: Options) -> str:
        return "the signal map is empty"

    def apply(self, walk: Walk) -> tuple[dict[int, Any], Any]:
        before: dict[int, Any] = {}
        mask = block_signals()
        try:
            for number, handler in walk.options.signal_map.items():
                before[number] = signal.signal(number, _announced(walk, number, handler))
            signal.pthread_sigmask(signal.SIG_SETMASK, mask.difference(walk.options.signal_map))
        except BaseException:
            self.undo(walk, (before, mask))
            raise
        return before, mask

    def undo(self, walk: Walk, memory: tuple[dict[int, Any], Any]) -> None:
        before, mask = memory
        for number, handler in before.items():
            if handler is not None:  # None: installed by C code, can't be put back from here
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _announced(walk: Walk, number: int, handler: Any) -> Any:
    """A handler for SIGHUP is taken for one that reloads, of which a manager wants to hear."""
    if number == signal.SIGHUP and callable(handler) and not getattr(handler, "announces", False):
        return walk.manager.around(handler)
    return handler


def _in_words(signal_map: dict[int, Any]) -> str:
    words = []
    for number, handler in signal_map.items():
        if handler == signal.SIG_IGN:
            target = "ignored"
        elif handler == signal.SIG_DFL:
            target = "default"
        else:
            target = getattr(handler, "__name__", None) or repr(handler)
        words.append(f"{signal_name(number)} {target}")
    return ", ".join(words)


def _numbers(groups: tuple[int, ...]) -> str:
    return ", ".join(map(str, groups)) or "none"

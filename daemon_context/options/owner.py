"""Users and groups: resolved while their databases are in reach, and become for good.

credentials(7), setgroups(2), setresuid(2). Imported only where the owner changes.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
from io import FileIO

from ..errors import DaemonOSEnvironmentError, OptionError, refuse
from ..system import capabilities
from ..system.capabilities import CAP_SETGID, CAP_SETUID, has_capability

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from . import Given
    from .frozen import Options


def resolve_owner(given: Given) -> dict[str, Any]:
    """Resolve users and groups while their databases are in reach."""
    initgroups = bool(given.initgroups)
    uid, entry = _uid(given._uid)
    gid = _gid(given._gid, uid, entry, given=given._uid is not None)
    real, effective = (os.getuid(), os.getgid()), (os.geteuid(), os.getegid())
    saved = _saved_ids()
    changes = not real == effective == saved == (uid, gid)
    groups = None
    if initgroups and entry is not None:
        groups = tuple(sorted(set(os.getgrouplist(entry.pw_name, gid))))
        changes = changes or set(groups) != {*os.getgroups(), gid}
    elif changes:
        groups = (gid,)  # root's groups never survive a change of owner
    return {
        "uid": uid,
        "gid": gid,
        "initgroups": initgroups,
        "user": entry.pw_name if entry else None,
        "home": entry.pw_dir if entry else None,
        "groups": groups,
        "owner_changes": changes,
    }


def _saved_ids() -> tuple[int, int]:
    if hasattr(os, "getresuid"):
        return os.getresuid()[2], os.getresgid()[2]
    return os.geteuid(), os.getegid()


def _uid(value: Any) -> tuple[int, Any]:
    expected = "None, a user's number or the name of a user that exists"
    if isinstance(value, str):
        try:
            entry = pwd.getpwnam(value)
        except (KeyError, ValueError):
            raise refuse("uid", value, expected) from None
        return entry.pw_uid, entry
    uid = os.getuid() if value is None else value
    if not isinstance(uid, int) or isinstance(uid, bool) or not 0 <= uid < 2**32 - 1:
        raise refuse("uid", value, expected)
    try:
        return uid, pwd.getpwuid(uid)
    except KeyError:
        return uid, None


def _gid(value: Any, uid: int, entry: Any, *, given: bool) -> int:
    expected = "None, a group's number or the name of a group that exists"
    if isinstance(value, str):
        try:
            return grp.getgrnam(value).gr_gid
        except (KeyError, ValueError):
            raise refuse("gid", value, expected) from None
    if value is None and given and uid != os.getuid():
        if entry is None:
            raise refuse(
                "uid",
                uid,
                "a user with an entry in the user database, or gid as well: "
                "without an entry its primary group is not known",
            )
        return int(entry.pw_gid)
    gid = os.getgid() if value is None else value
    if not isinstance(gid, int) or isinstance(gid, bool) or not 0 <= gid < 2**32 - 1:
        raise refuse("gid", value, expected)
    return gid


def default_gid(uid: Any) -> int:
    """What `gid` resolves to where it is not given."""
    if uid is None:
        return os.getgid()
    try:
        return _gid(None, *_uid(uid), given=True)
    except OptionError:
        return os.getgid()


def require_privilege(options: Options, phrase: str) -> None:
    """Preflight: whether this process may change its owner so.

    :raises DaemonOSEnvironmentError: it may not
    """
    if not hasattr(os, "setresuid"):
        raise DaemonOSEnvironmentError(
            f"cannot {phrase}: this operating system has no setresuid(), "
            "so root could be regained; start as the user that the daemon is to have"
        )
    lacking = _lacking(options)
    if lacking:
        raise DaemonOSEnvironmentError(
            f"cannot {phrase}: {os.strerror(1)}; start as root, or with "
            f"{lacking}, or leave uid and gid as they are",
            errno=1,
        )


def require_sight(options: Options, phrase: str) -> None:
    """Preflight: whether it can be told in the end what is left of root.

    :raises DaemonOSEnvironmentError: there is no ``/proc``
    """
    if not _leaves_root(options):
        return
    try:
        with FileIO("/proc/self/status") as file:
            status = file.readall() or b""
    except OSError as error:
        raise DaemonOSEnvironmentError(
            f"cannot {phrase}: without /proc nobody can tell whether root's capabilities survive "
            f"it ({error.strerror}); mount /proc",
            errno=error.errno,
            path="/proc",
        ) from error
    if int(status.partition(b"\nCapInh:")[2].split(None, 1)[0], 16):
        capabilities.prepare()


def look(options: Options, take: Callable[[int], int]) -> list[int]:
    """Descriptors by which `become` sees, wherever it is, what root has left.

    :param take: what each is given to
    :raises DaemonOSEnvironmentError: ``/proc`` is out of reach
    """
    if not _leaves_root(options):
        return []
    try:
        return capabilities.open_statuses(take)
    except OSError as error:
        raise DaemonOSEnvironmentError(
            "whether root's capabilities survive it can't be told, as /proc is out of reach "
            f"({error.strerror}); give chroot_directory for a new root, which looks before it",
            errno=error.errno,
            path="/proc",
        ) from error


def become(options: Options, statuses: list[int]) -> None:
    """Groups first, then gid, then uid, because after the uid no privilege is left to do it.

    :param statuses: from `look`
    """
    was = os.getresuid()
    if capabilities.held(statuses, capabilities.INHERITABLE):
        capabilities.clear_inheritable()
    if options.groups is not None and has_capability(CAP_SETGID):
        os.setgroups(options.groups)
    os.setresgid(options.gid, options.gid, options.gid)
    os.setresuid(options.uid, options.uid, options.uid)
    if options.uid != 0:
        _require_dropped(was, statuses)
        if options.uid != was[0]:
            _follow_user(options)


def _leaves_root(options: Options) -> bool:
    return options.uid != 0 and 0 in os.getresuid()


def _lacking(options: Options) -> str:
    """The capability that the change needs and the process does not have."""
    if options.uid not in os.getresuid() and not has_capability(CAP_SETUID):
        return "CAP_SETUID"
    gid_fits = options.gid in os.getresgid()
    if not (gid_fits and _groups_fit(options)) and not has_capability(CAP_SETGID):
        return "CAP_SETGID"
    return ""


def _groups_fit(options: Options) -> bool:
    """Whether nothing is wrong where the groups can't be set, as they belong to this user."""
    present = set(os.getgroups())
    return options.groups is None or (
        set(options.groups) <= {*present, options.gid}
        and (options.uid == os.getuid() or present <= {*options.groups})
    )


def _require_dropped(was: tuple[int, int, int], statuses: list[int]) -> None:
    for former in {0, *was} - {os.getuid()}:
        try:
            os.setuid(former)
        except OSError as error:
            # EINVAL: the user namespace has no such user, as root in many a sandbox.
            if error.errno in (errno.EPERM, errno.EINVAL):
                continue
            raise
        raise DaemonOSEnvironmentError(
            f"the owner was changed, but uid {former} could be regained: the process keeps "
            "CAP_SETUID (look at securebits, and at the ambient capabilities)"
        )
    _require_none(statuses, capabilities.PERMITTED, "used again: clear PR_SET_KEEPCAPS (prctl(2))")
    _require_none(
        statuses,
        capabilities.INHERITABLE,
        "had by programs that are run: clear them, in all threads (capset(2))",
    )


def _require_none(statuses: list[int], which: str, use: str) -> None:
    kept = capabilities.held(statuses, which)
    if kept:
        raise DaemonOSEnvironmentError(
            f"the owner was changed, but root's capabilities are kept ({which} {kept:x}), so that "
            f"they could be {use} before the start"
        )


def _follow_user(options: Options) -> None:
    """What programs take for the user's: login(1) sets the same three."""
    name = options.user or str(options.uid)
    os.environ.update(HOME=options.home or "/", USER=name, LOGNAME=name)

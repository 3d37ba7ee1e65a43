"""Users and groups: resolved while their databases are in reach, before any chroot."""

from __future__ import annotations

import os

from .errors import OptionError, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .context import DaemonContext


def resolve_owner(context: DaemonContext) -> dict[str, Any]:
    """Resolve users and groups while their databases are in reach."""
    initgroups = bool(context.initgroups)
    uid, entry = _uid(context._uid)
    gid = _gid(context._gid, uid, entry, given=context._uid is not None)
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
    import pwd

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
        import grp

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

"""change-owner: become another user for good (credentials(7), setgroups(2), setresuid(2))."""

from __future__ import annotations

import os

from ..errors import DaemonOSEnvironmentError
from ..process import CAP_SETGID, CAP_SETUID, has_capability, permitted_capabilities
from ..step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..options import Options
    from ..sequence import Walk


class ChangeOwner(Step):
    """Groups first, then gid, then uid, because after the uid no privilege is left to do it.

    Real, effective and saved ids are all set; then regaining root is tried, and must fail.
    """

    name = "change-owner"
    touches = frozenset({"uid", "gid", "groups", "environment"})
    after = {
        "detach": "only the launcher's own user may undo what the launcher did",
        "change-root": "only root can change the root directory",
        "lock-pidfile": "the pid file is opened with the launching user's rights",
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
        options = walk.options
        if not hasattr(os, "setresuid"):
            raise DaemonOSEnvironmentError(
                f"cannot {self.describe(options)}: this operating system has no setresuid(), "
                "so root could be regained; start as the user that the daemon is to have"
            )
        lacking = _lacking(options)
        if lacking:
            raise DaemonOSEnvironmentError(
                f"cannot {self.describe(options)}: {os.strerror(1)}; start as root, or with "
                f"{lacking}, or leave uid and gid as they are",
                errno=1,
            )

    def apply(self, walk: Walk) -> None:
        options = walk.options
        was = os.getresuid()
        if options.groups is not None and has_capability(CAP_SETGID):
            os.setgroups(options.groups)
        os.setresgid(options.gid, options.gid, options.gid)
        os.setresuid(options.uid, options.uid, options.uid)
        if options.uid != 0:
            _require_dropped(was)
            if options.uid != was[0]:
                _follow_user(options)


def _numbers(groups: tuple[int, ...]) -> str:
    return ", ".join(map(str, groups)) or "none"


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


def _require_dropped(was: tuple[int, int, int]) -> None:
    for former in {0, *was} - {os.getuid()}:
        try:
            os.setuid(former)
        except PermissionError:
            continue
        raise DaemonOSEnvironmentError(
            f"the owner was changed, but uid {former} could be regained: the process keeps "
            "CAP_SETUID (look at securebits, and at the ambient capabilities)"
        )
    kept = permitted_capabilities()
    if 0 in was and kept:
        raise DaemonOSEnvironmentError(
            f"the owner was changed, but root's capabilities are kept (CapPrm {kept:x}), so that "
            "they could be used again: clear PR_SET_KEEPCAPS (prctl(2)) before the start"
        )


def _follow_user(options: Options) -> None:
    """What programs take for the user's: login(1) sets the same three."""
    name = options.user or str(options.uid)
    os.environ.update(HOME=options.home or "/", USER=name, LOGNAME=name)

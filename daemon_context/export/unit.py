"""The text of a unit: systemd.service(5), systemd.exec(5)."""

from __future__ import annotations

import os
import re

from ..daemon import Daemon
from ..embedding import SCHEDULE
from ..errors import DaemonError
from ..options.freezing import freeze
from ..system import signal
from .hardening import hardening
from .paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import SimpleNamespace

    from ..options import Options
    from .capture import Captured

PLAIN = re.compile(r"[\w@%+=:,./-]+", re.ASCII)


def unit_of(captured: Captured, call: SimpleNamespace) -> str:
    """The unit.

    :param call: `argv`, the command; `user` and `watchdog`, as `export` got them
    :raises DaemonError: no unit can be right for it
    """
    if captured.detaches:
        raise DaemonError(
            "it detaches whoever starts it, and systemd would lose it: give detach_process=None, "
            "or have it call main() of a Daemon"
        )
    if captured.context._detach_process is None:
        captured.context._detach_process = False  # what started this process does not matter
    options = freeze(captured.context)
    if call.user and options.owner_changes:
        raise DaemonError("the manager of a user can't change uid or gid: leave --user out")
    paths = Paths(options, call)
    lines = [
        "[Unit]",
        f"Description={_described(captured, call)}",
        "",
        "[Service]",
        "Type=notify",
        *_commands(captured, options, call),
        *_owner(options, call),
        *_places(options, paths, call),
        f"TimeoutStopSec={sum(seconds for _, seconds in SCHEDULE):g}",
        "Restart=on-failure",
        *([f"WatchdogSec={call.watchdog:g}"] if call.watchdog else []),
        "",
        *hardening(options, paths, call, asks=_overrides_reload(captured) and not call.user),
        "",
        "[Install]",
        f"WantedBy={'default' if call.user else 'multi-user'}.target",
    ]
    return "\n".join(lines) + "\n"


def _described(captured: Captured, call: SimpleNamespace) -> str:
    daemon = captured.daemon
    text = (type(daemon).__doc__ or "") if daemon is not None else ""
    first = text.strip().partition("\n")[0].rstrip(".")
    return (first or os.path.basename(call.argv[1])).replace("%", "%%")


def _commands(captured: Captured, options: Options, call: SimpleNamespace) -> Iterator[str]:
    def line(*verb: str) -> str:
        return " ".join(word(part, "$") for part in (*call.argv, *verb))

    yield f"ExecStart={line(*([captured.verb] if captured.verb else []))}"
    if _overrides_reload(captured) and captured.verb and not call.user:
        yield f"ExecReload={line('reload')}"
    elif _takes_hangup(captured, options):
        if captured.verb:
            yield "# Not the verb `reload`, from which PrivateUsers=yes would hide the daemon"
        yield "ExecReload=/bin/kill -HUP $MAINPID"
    if os.environ.get("PYTHONPATH"):
        yield f"Environment={word('PYTHONPATH=' + os.environ['PYTHONPATH'])}"


def _overrides_reload(captured: Captured) -> bool:
    kind = type(captured.daemon) if captured.daemon is not None else Daemon
    return kind.on_reload is not Daemon.on_reload


def _takes_hangup(captured: Captured, options: Options) -> bool:
    if captured.daemon is not None:  # of the class, each has a handler
        return _overrides_reload(captured)
    return callable(options.signal_map.get(signal.SIGHUP))


def _owner(options: Options, call: SimpleNamespace) -> Iterator[str]:
    if call.user:
        return
    if options.chroot_directory and options.owner_changes:
        yield "# chroot_directory= needs root at first: the program changes its owner by itself."
    elif options.uid or options.owner_changes:
        yield f"User={_user_name(options.uid)}"
        yield f"Group={_group_name(options.gid)}"


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _places(options: Options, paths: Paths, call: SimpleNamespace) -> Iterator[str]:
    if options.umask is not None:
        yield f"UMask={options.umask:04o}"
    if paths.directory:
        yield f"WorkingDirectory={paths.directory.replace('%', '%%')}"
    if paths.runtime:
        yield f"RuntimeDirectory={' '.join(map(word, paths.runtime))}"
    if paths.written:
        yield f"ReadWritePaths={' '.join(map(word, paths.written))}"


def word(text: str, special: str = "") -> str:
    """A word of a line, quoted where it must be (systemd.syntax(7)).

    :param special: a character that is doubled, as ``$`` in a command
    """
    for character in f"%{special}":
        text = text.replace(character, character * 2)
    if PLAIN.fullmatch(text):
        return text
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return (
        character
        if character.isprintable()
        else "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
    )

"""Who is compared, and how each is started."""

from __future__ import annotations

from dataclasses import dataclass, field

from .environment import PROGRAMS, Environment

OURS = "daemon_context"
PD = "python-daemon"
BARE = "bare double fork"
WAITING = "bare, waits for ready"
INLINE = "all steps inline"
INTERPRETER = "python alone"
C = "daemon(3) in C"
CLASSIC = "class of 2007"
PEERS = (PD, "daemonocle", "daemonize", "daemons")  # libraries from PyPI


@dataclass(frozen=True)
class Contender:
    """One way of becoming a daemon.

    :ivar name: as tables and plots have it
    :ivar command: arguments; ``{pidfile}`` and ``{directory}`` are replaced in each
    :ivar pidfile: ``"can"``, ``"must"`` or ``"not"``
    """

    name: str
    command: tuple[str, ...]
    pidfile: str = "can"
    options: tuple[str, ...] = field(default=())  # with a pid file

    def arguments(self, directory: str, pidfile: str | None) -> list[str]:
        """The command of one start."""
        first, *rest = self.command
        options = self.options if pidfile else ()
        return [
            word.format(directory=directory, pidfile=pidfile) for word in (first, *options, *rest)
        ]


class Contenders:
    """All contenders that can run in the environment, by name."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.all: dict[str, Contender] = {}
        for name, program, pidfile in (
            (INTERPRETER, "interpreter", "can"),
            (BARE, "bare", "can"),
            (WAITING, "waiting", "not"),
            (INLINE, "inline", "not"),
            (OURS, "ours", "can"),
            (PD, "python_daemon", "can"),
            ("daemonocle", "with_daemonocle", "can"),
            ("daemonize", "with_daemonize", "must"),
            ("daemons", "with_daemons", "must"),
        ):
            if name not in PEERS or environment.peers:
                self._add(Contender(name, self.python(program), pidfile))
        self._add(Contender(CLASSIC, self.python("classic", "start"), "must"))
        if environment.limit:
            self._add(Contender(C, (environment.limit,)))
        for contender in self._commands(environment.tools):
            self._add(contender)

    def python(self, program: str, *words: str) -> tuple[str, ...]:
        """The command of one of our programs."""
        return (str(self.environment.python), str(PROGRAMS / f"{program}.py"), *words)

    def named(self, *names: str) -> list[Contender]:
        """Those of these names that are here."""
        return [self.all[name] for name in names if name in self.all]

    def _add(self, contender: Contender) -> None:
        self.all[contender.name] = contender

    def _commands(self, tools: dict[str, str]) -> list[Contender]:
        """Commands that run any program as a daemon; here a Python program."""
        body = self.python("interpreter")
        found = []
        if self.environment.peers:
            zdaemon = str(self.environment.directory / "bin" / "zdaemon")
            place = ("-z", "{directory}", "-s", "{directory}/zdsock")
            command = (zdaemon, *place, "-p", " ".join(body), "start")
            found.append(Contender("zdaemon", command, "not"))
        for name, tool, pidfile, options, words in (
            ("start-stop-daemon", "start-stop-daemon", "must",
             ("--make-pidfile", "--pidfile", "{pidfile}"),
             ("--start", "--background", "--quiet", "--startas", body[0], "--", *body[1:])),
            ("daemonize (Debian)", "daemonize", "can",
             ("-p", "{pidfile}", "-l", "{pidfile}.lock"), body),
            ("daemon (Debian)", "daemon", "can",
             ("-F", "{pidfile}"), ("--unsafe", "--inherit", "--", *body)),
        ):  # fmt: skip
            if tool in tools:
                found.append(Contender(name, (tools[tool], *words), pidfile, options))
        return found

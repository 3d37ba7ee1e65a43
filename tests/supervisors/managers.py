"""Process managers: how each is told of the program, asked to reload and to stop it.

Each writes what it needs into a directory, `where`, that is private to one test.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import ClassVar

from tests.helpers import support

from .conftest import which
from .jail import Jail
from .subject import Subject


class Manager:
    """One of them; what is called `program` in it is the program."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    ready = "not asked"

    def __init__(self, where: Path, python_path: str) -> None:
        self.where = where
        self.python_path = python_path
        where.mkdir()
        self.paths = {program: which(program) for program in self.needs}

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        path = self.where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def launch(self, subject: Subject) -> str:
        """Write the configuration. Returns the command that stays in the foreground."""
        raise NotImplementedError

    def tell(self, jail: Jail, *command: str) -> str:
        """What the manager's own tool says."""
        done = jail.ask(self.paths[command[0]], *command[1:])
        assert done.returncode == 0, (command, done)
        return done.stdout

    def await_ready(self, jail: Jail) -> None:
        """Wait until it knows that the program is ready, where it can."""

    def reload(self, jail: Jail) -> None:
        raise NotImplementedError

    def stop(self, jail: Jail) -> None:
        raise NotImplementedError

    def status(self, jail: Jail, subject: Subject) -> str:
        """How the program ended, as the manager saw it."""
        raise NotImplementedError


class S6(Manager):
    name = "s6"
    needs = ("s6-svscan", "s6-supervise", "s6-svc", "s6-svwait")
    ready = "a newline on its descriptor"

    def launch(self, subject: Subject) -> str:
        self.write("scan/program/notification-fd", "3\n")
        self.write("scan/program/run", f"#!/bin/sh\nexec {subject.line()}\n", 0o755)
        self.write("scan/program/finish", FINISH.format(subject.inside), 0o755)
        return shlex.join([self.paths["s6-svscan"], str(self.where / "scan")])

    @property
    def service(self) -> str:
        return str(self.where / "scan/program")

    def await_ready(self, jail: Jail) -> None:
        support.until(lambda: (Path(self.service) / "supervise/status").exists())
        self.tell(jail, "s6-svwait", "-U", "-t", "8000", self.service)

    def reload(self, jail: Jail) -> None:
        self.tell(jail, "s6-svc", "-h", self.service)

    def stop(self, jail: Jail) -> None:
        self.tell(jail, "s6-svc", "-d", self.service)

    def status(self, jail: Jail, subject: Subject) -> str:
        return f"status {subject.text('finished').split()[0]}"


FINISH = "#!/bin/sh\necho $1 > {}/finished\n"


class Runit(S6):
    name = "runit"
    needs = ("runsvdir", "runsv", "sv")
    ready = "not asked"

    def launch(self, subject: Subject) -> str:
        self.write("scan/program/run", f"#!/bin/sh\nexec {subject.line()}\n", 0o755)
        self.write("scan/program/finish", FINISH.format(subject.inside), 0o755)
        return shlex.join([self.paths["runsvdir"], str(self.where / "scan")])

    def await_ready(self, jail: Jail) -> None:
        pass

    def reload(self, jail: Jail) -> None:
        self.tell(jail, "sv", "hup", self.service)

    def stop(self, jail: Jail) -> None:
        self.tell(jail, "sv", "down", self.service)


class Daemontools(Runit):
    name = "daemontools"
    needs = ("svscan", "supervise", "svc", "svstat")

    def launch(self, subject: Subject) -> str:
        self.write("scan/program/run", f"#!/bin/sh\nexec {subject.line()}\n", 0o755)
        return shlex.join([self.paths["svscan"], str(self.where / "scan")])

    def reload(self, jail: Jail) -> None:
        self.tell(jail, "svc", "-h", self.service)

    def stop(self, jail: Jail) -> None:
        self.tell(jail, "svc", "-d", self.service)

    def status(self, jail: Jail, subject: Subject) -> str:
        def down() -> str:
            said = self.tell(jail, "svstat", self.service)
            return "down, by its request" if ": down" in said else ""

        return support.until(down, what="a service that is down")


class Supervisord(Manager):
    name = "supervisord"
    needs = ("supervisord", "supervisorctl")

    def launch(self, subject: Subject) -> str:
        settings = {
            "supervisord": f"nodaemon=true\nuser=root\nlogfile={self.where}/log\n"
            f"pidfile={self.where}/pid",
            "unix_http_server": f"file={self.where}/ctl",
            "supervisorctl": f"serverurl=unix://{self.where}/ctl",
            "rpcinterface:supervisor": "supervisor.rpcinterface_factory="
            "supervisor.rpcinterface:make_main_rpcinterface",
            "program:program": f"command={subject.line()}\nstartsecs=0\n"
            f'environment=PYTHONPATH="{self.python_path}"',
        }
        text = "".join(f"[{name}]\n{lines}\n" for name, lines in settings.items())
        self.config = str(self.write("supervisord.conf", text))
        return f"env -u PYTHONPATH {self.paths['supervisord']} -n -c {self.config}"

    def ctl(self, jail: Jail, *command: str) -> None:
        self.tell(jail, "supervisorctl", "-c", self.config, *command)

    def reload(self, jail: Jail) -> None:
        self.ctl(jail, "signal", "HUP", "program")

    def stop(self, jail: Jail) -> None:
        self.ctl(jail, "stop", "program")

    def status(self, jail: Jail, subject: Subject) -> str:
        log = self.where / "log"
        found = support.until(lambda: re.search(r"stopped: program \((.*)\)", log.read_text()))
        return found[1]


class Circus(Manager):
    name = "circus"
    needs = ("circusd", "circusctl")

    def launch(self, subject: Subject) -> str:
        self.config = self.write("circus.ini", (
            f"[circus]\n[watcher:program]\ncmd={subject.line()}\ncopy_env=True\n"
            f"[env:program]\nPYTHONPATH={self.python_path}\n"
        ))  # fmt: skip
        log = self.where / "log"
        return (
            f"env -u PYTHONPATH {self.paths['circusd']} --log-level debug --log-output {log} "
            f"{self.config}"
        )

    def reload(self, jail: Jail) -> None:
        self.tell(jail, "circusctl", "signal", "program", "hup")

    def stop(self, jail: Jail) -> None:
        self.tell(jail, "circusctl", "stop", "program")

    def status(self, jail: Jail, subject: Subject) -> str:
        return self.tell(jail, "circusctl", "status", "program").strip()


class Honcho(Manager):
    name = "honcho"
    needs = ("honcho",)

    def launch(self, subject: Subject) -> str:
        self.write("Procfile", f"program: exec {subject.line()}\n")
        return f"{self.paths['honcho']} -f {self.where}/Procfile start > {self.where}/log 2>&1"

    def reload(self, jail: Jail) -> None:
        raise NotImplementedError("it has no reload")

    def stop(self, jail: Jail) -> None:
        done = jail.ask("pkill", "-TERM", "-x", "-f", f".*{self.where}/Procfile start")
        assert done.returncode == 0, done

    def status(self, jail: Jail, subject: Subject) -> str:
        log = self.where / "log"
        found = support.until(lambda: re.search(r"program.*stopped \((.*)\)", log.read_text()))
        return found[1]


class Pm2(Manager):
    name = "pm2"
    needs = ("pm2", "node")

    def launch(self, subject: Subject) -> str:
        python, *arguments = subject.argv()
        self.environ = f"PM2_HOME={self.where}/home PM2_KILL_SIGNAL=SIGTERM"
        self.environ += f" PATH={Path(self.paths['node']).parent}:$PATH"
        command = shlex.join(
            [self.paths["pm2"], "start", python, "--name", "program", "--interpreter", "none",
             "--no-autorestart", "--", *arguments]
        )  # fmt: skip
        return f"{self.environ} {command} > {self.where}/said"

    def pm2(self, jail: Jail, *command: str) -> None:
        line = f"{self.environ} {self.paths['pm2']} {shlex.join(command)}"
        done = jail.ask("sh", "-c", line)
        assert done.returncode == 0, done

    def reload(self, jail: Jail) -> None:
        self.pm2(jail, "sendSignal", "SIGHUP", "program")

    def stop(self, jail: Jail) -> None:
        self.pm2(jail, "stop", "program")

    def status(self, jail: Jail, subject: Subject) -> str:
        log = self.where / "home" / "pm2.log"
        found = support.until(
            lambda: re.search(r"App \[program:0\] exited with (code \[\d+\])", log.read_text())
        )
        return found[1]


MANAGERS: dict[str, type[Manager]] = {
    kind.name: kind for kind in (S6, Runit, Daemontools, Supervisord, Circus, Honcho, Pm2)
}

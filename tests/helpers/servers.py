"""Debian's sshd and cron for tests, each in a mount namespace, away from the machine's own.

There every user can run Python, wherever it is installed, and nobody has a shell and a home.
"""

from __future__ import annotations

import grp
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

from tests.helpers import support, tools

T = TypeVar("T", bound="Server")
NOBODY = 65534
TTY = grp.getgrnam("tty").gr_gid
AS_NOBODY = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --inh-caps=-all "
SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


class Private:
    """A mount namespace: what is mounted there, and the Python that programs there have.

    :ivar python: its path, in there
    :ivar environ: what programs need to find the library, and the tests to find them
    """

    def __init__(self, box: support.Sandbox) -> None:
        self.box = box
        self.mounts: list[str] = []
        for name in ("/run", "/var/log"):  # pid files, the records of logins, the way to syslog
            self.mounts.append(f"mount -t tmpfs none {name}")
        # Terminals belong to the group that an sshd without root can't give them.
        self.mounts.append(f"mount -t devpts -o gid={TTY},mode=620,ptmxmode=666 none /dev/pts")
        executable = Path(os.path.realpath(sys.executable)).relative_to(sys.base_prefix)
        prefix = self.mount(sys.base_prefix, "python")
        self.python = str(prefix / executable)
        packages = Path(shutil.__file__).parent / "site-packages"
        if sys.prefix != sys.base_prefix:
            packages = Path(sys.prefix) / packages.relative_to(sys.base_prefix)
        path = [self.mount(support.ROOT, "project"), self.mount(packages, "packages")]
        self.environ = {
            support.MARK: box.mark,
            "PYTHONPATH": ":".join(map(str, path)),
            "LD_LIBRARY_PATH": str(prefix / "lib"),  # a shared libpython where it was built
        }
        self._users()

    def mount(self, what: str | Path, name: str) -> Path:
        """See a directory in the sandbox, too; the place."""
        place = self.box.path / name
        place.mkdir()
        self.cover(place, what)
        return place

    def cover(self, place: str | Path, what: str | Path) -> None:
        """See one file or directory in the place of another, if there is that other."""
        if os.path.exists(place):
            self.mounts.append(shlex.join(["mount", "--bind", str(what), str(place)]))

    def _users(self) -> None:
        for name in ("passwd", "shadow"):
            lines = Path(f"/etc/{name}").read_text().splitlines()
            lines = [line for line in lines if line.split(":")[0] not in ("root", "nobody")]
            for user, uid in (("root", 0), ("nobody", NOBODY)):
                entry = f"x:{uid}:{uid}::{self.box.path}:/bin/sh"
                lines.append(f"{user}:{entry if name == 'passwd' else '*:19000:0:99999:7:::'}")
            copy = self.box.path / name
            copy.write_text("\n".join(lines) + "\n")
            self.cover(f"/etc/{name}", copy)

    def wrap(self, command: str) -> list[str]:
        """The command that runs this one in there, as the same process."""
        script = "\n".join([*self.mounts, f"exec {command}"])
        return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script]


def children(pid: int) -> set[int]:
    """All processes below this one."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return set()
    found = set(map(int, text.split()))
    return found.union(*map(children, found))


class Server:
    """A server in the foreground, and all that it starts; as a context manager, which ends them."""

    def __init__(self, box: support.Sandbox, user: str) -> None:
        self.box = box
        self.user = user
        self.process: subprocess.Popen[str] | None = None

    def begin(self, command: list[str]) -> subprocess.Popen[str]:
        """Start it without a terminal; what it complains of is in the file `said`."""
        self.end()
        with (self.box.path / "said").open("w") as said:
            self.process = subprocess.Popen(
                command, cwd=self.box.path, env={**self.box.environ, "PATH": SYSTEM}, text=True,
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip
        return self.process

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def check(self) -> None:
        """Fail if it has ended."""
        assert self.process is not None
        assert self.process.poll() is None, (self.box.path / "said").read_text()

    def settled(self) -> None:
        """Wait until there are no sessions, or jobs."""
        support.until(lambda: not children(self.pid), what=f"processes below {self.pid}")
        self.check()

    def others(self) -> set[int]:
        """The processes of the sandbox without the server: sshd loses the mark with its title."""
        return self.box.processes() - {self.pid}

    def end(self) -> None:
        """Kill it and all below it."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)  # so that there are no new ones
        for pid in [*children(self.pid), self.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()


class Sshd(Server):
    """A real sshd on a port of this machine, for one user.

    :param user: "root", "nobody", or "" for the one who runs the tests, without a namespace
    """

    def __init__(self, box: support.Sandbox, user: str) -> None:
        super().__init__(box, user)
        self.private = Private(box) if user else None
        self.python = self.private.python if self.private else sys.executable
        for name in ("host", "key"):
            keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(box.path / name)]
            subprocess.run(keygen, check=True)
        (box.path / "known").write_text(f"box {(box.path / 'host.pub').read_text()}")
        if user == "nobody":
            os.chown(box.path / "host", NOBODY, NOBODY)
        elif self.private:
            self.private.mounts.append("mkdir /run/sshd")  # root's wants that, for itself

    def start(self) -> None:
        """Have it listen; a port that was free may be taken by the time it is there."""
        support.until(self._listens, what="no free port")

    def _listens(self) -> bool:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        log = self.box.path / "sshd.log"
        log.unlink(missing_ok=True)
        process = self.begin(self._command(log))

        def said() -> str:
            return log.read_text() if log.exists() else ""

        support.until(lambda: "Server listening" in said() or process.poll() is not None)
        if "Address already in use" in said():
            return False
        self.check()
        return True

    def _command(self, log: Path) -> list[str]:
        path = self.box.path
        own = {name: self.box.environ[name] for name in (support.MARK, "PYTHONPATH")}
        environ = self.private.environ if self.private else own
        settings = " ".join(f'{name}="{value}"' for name, value in environ.items())
        (path / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {path}/host\nPidFile none\n"
            f"AuthorizedKeysFile {path}/key.pub\nStrictModes no\nUsePAM no\nUseDNS no\n"
            f"PasswordAuthentication no\nPrintMotd no\nPrintLastLog no\nSetEnv {settings}\n"
        )
        sshd = tools.find("sshd")
        command = [sshd, "-D", "-f", str(path / "sshd_config"), "-E", str(log)]
        if self.private is None:
            return command
        as_user = AS_NOBODY if self.user == "nobody" else ""
        return self.private.wrap(as_user + shlex.join(command))

    def command(self, *options: str, program: str | Path) -> list[str]:
        """Have ssh run a Python program in the sandbox."""
        path = self.box.path
        given = {
            "HostKeyAlias": "box", "UserKnownHostsFile": path / "known", "BatchMode": "yes",
            "StrictHostKeyChecking": "yes", "IdentityFile": path / "key", "IdentitiesOnly": "yes",
            "IdentityAgent": "none", "LogLevel": "ERROR", "Port": self.port,
        }  # fmt: skip
        if self.user:
            given["User"] = self.user
        settings = [word for key, value in given.items() for word in ("-o", f"{key}={value}")]
        remote = f"cd {shlex.quote(str(path))} && {shlex.join([self.python, '-B', str(program)])}"
        return ["ssh", "-F", "none", *settings, *options, "127.0.0.1", remote]


class Cron(Server):
    """Debian's cron, which runs one job at once, as if the machine had just been started.

    Its mail goes into the sandbox.
    """

    def __init__(self, box: support.Sandbox, user: str) -> None:
        super().__init__(box, user)
        self.private = Private(box)
        for name in ("spool", "none", "sbin"):
            (box.path / name).mkdir()
        (box.path / "nothing").touch()
        sendmail = box.path / "sbin" / "sendmail"
        sendmail.write_text(
            f"#!/bin/sh\ncat > {box.path}/mail.tmp\nmv {box.path}/mail.tmp {box.path}/mail\n"
        )
        sendmail.chmod(0o755)

    def run(self, program: Path) -> None:
        """Have it run a program."""
        self._table(program)
        private, path = self.private, self.box.path
        private.cover("/var/spool/cron", path / "spool")
        private.cover("/etc/crontab", path / "nothing")
        private.cover("/etc/cron.d", path / "none")
        cron = tools.find("cron")
        programs = private.mount(os.path.dirname(cron), "programs")
        private.cover("/usr/sbin", path / "sbin")
        self.begin(private.wrap(f"{programs}/cron -f"))

    def _table(self, program: Path) -> None:
        table = self.box.path / "spool" / "crontabs" / self.user
        table.parent.mkdir()
        settings = {**self.private.environ, "MAILTO": "somebody", "HOME": self.box.path}
        lines = [f"{key}={value}" for key, value in settings.items()]
        lines.append(f"@reboot {self.private.python} -B {program}")
        table.write_text("\n".join(lines) + "\n")
        table.chmod(0o600)
        if self.user == "nobody":
            os.chown(table, NOBODY, NOBODY)

    def mail(self) -> str:
        """The body of the mail that it sends."""
        text = self.box.text("mail")
        self.check()
        return text.partition("\n\n")[2]

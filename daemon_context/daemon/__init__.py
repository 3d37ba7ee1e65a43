"""`Daemon`: the class that the classic recipe should have been.

Give it a pid file, override `run()`, call `start()`, `stop()`, `restart()`; or let `main()` give
the script its verbs.
"""

from __future__ import annotations

import atexit
import os
import sys

from .. import control
from ..embedding import SCHEDULE
from ..embedding.target import forget_launcher, run_to_exit
from ..errors import SetupExit
from ..system import is_main_thread, signal
from .making import Making
from .refusals import require_known, require_work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterable
    from typing import Any, NoReturn

    from ..look.explain import Explanation

    Schedule = Iterable[tuple[str | int, float]]


class Daemon(Making):
    """Base class of a daemon: override `run`.

    :param pidfile: path of the pid file, or a `PidFile`
    :param stdin: as the option of `DaemonContext`; None is ``/dev/null``
    :param stdout: the same; a path is appended to
    :param stderr: the same; None follows a `stdout` that is a path
    :param foreground_streams: whether streams that are paths are used in the foreground, too;
        otherwise its output is seen
    :param stop_children: whether what is left of the process group that the start has made is ended
        with the daemon: by SIGTERM, and a second later by SIGKILL
    :param options: all other options of `DaemonContext`, by name; by default the umask is 0o022,
        and a `run` that fails within 0.3 seconds is a failed start (``settle``). In the foreground,
        umask, working directory and core limit stay as they are by default
    :raises OptionError: there is no option of that name
    """

    #: What the command line said, once `main` has read it: ``verb``, ``json``, and what the
    #: options of the script's own parser are.
    arguments: Namespace | None = None
    did: Any = None  #: what the last verb has come to, for the line that is printed
    #: How `stop` and `restart` stop it: pairs of a signal and the seconds to wait after it.
    stop_schedule: Schedule = SCHEDULE

    def __init__(
        self,
        pidfile: Any,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        *,
        foreground_streams: bool = False,
        stop_children: bool | None = None,
        **options: Any,
    ) -> None:
        require_known(options)
        if stop_children is not None:
            self.stop_children = stop_children
        self.pidfile = pidfile
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.foreground_streams = foreground_streams
        self.options = options

    def __repr__(self) -> str:
        try:
            named = f", pid file {getattr(self.pidfile, 'path', self.pidfile)!r}"
        except Exception:  # a property that is not ready to tell
            named = ""
        return f"<{type(self).__name__}{named}>"

    def __getstate__(self) -> dict[str, Any]:
        """For workers that get a method of ours: what belongs to this process stays here."""
        own = ("_alone", "_context", "_said", "on_wait")
        return {name: value for name, value in vars(self).items() if name not in own}

    # --- the verbs

    def start(self) -> None:
        """Start the daemon; returns once it is ready, and never in the daemon, which ends with
        `run`. Also returns where `setup` has called ``sys.exit(0)``: there was nothing to do.

        Where one is being stopped, it waits for the end of that.

        :raises AlreadyRunning: it runs already; its ``handle`` is the running daemon's
        :raises SetupExit: `setup` has called ``sys.exit`` with a text, which is the error's
        :raises DaemonError: whatever went wrong; nothing that its stock steps did is left
        """
        self._require_outside()
        require_work(self)
        control.finish_stopping(self._lock(), self.on_wait)
        self._launching = True
        try:
            self.daemonize()
        except _Launched as launched:
            self.did = launched.pid
            return
        except SetupExit as ended:
            if ended.exit_status:
                raise
            self.did = ended
            return
        except BaseException as error:
            if not self._is_daemon():
                raise
            run_to_exit(self._give_up, error)  # what an override does in the daemon has failed
        finally:
            self._launching = False
        self._serve_and_exit()

    def stop(self, schedule: Schedule | None = None) -> None:
        """Stop the daemon; returns when it is gone and its lock is free; in the daemon at once.

        :param schedule: pairs of a signal and the seconds to wait after it; None: `stop_schedule`
        :raises DaemonError: it is not gone, or it can't be proven which process it is
        """
        given = self.stop_schedule if schedule is None else schedule
        self.did = control.stop(self._lock(), given, self.on_wait)

    def restart(self, schedule: Schedule | None = None) -> None:
        """Stop the daemon if it runs, and start it; it stays if the new one's checks fail.

        :raises DaemonError: as `stop` and `start` do
        """
        self._make_context().check()
        require_work(self)
        self.stop(schedule)
        self.start()

    def reload(self, timeout: float = control.RELOAD_TIMEOUT) -> None:
        """Have the daemon call `on_reload`; returns when it has taken the new configuration; in
        `run` at once.

        :param timeout: seconds to wait for it
        :raises NotTold: `run` has given the signal to somebody else, such as a framework: it was
            sent, and nobody tells how it went
        :raises DaemonError: it does not run, does not answer, or `on_reload` raised: then the
            daemon goes on with the old configuration
        """
        if self._is_daemon() and is_main_thread():  # it can't wait for itself
            self.did = os.getpid()
            os.kill(os.getpid(), signal.SIGHUP)
        else:
            self.did = control.reload(self._lock(), timeout, self.on_wait)

    def status(self) -> control.Status:
        """What can be known about the daemon from here. Changes nothing."""
        return control.status_of(self._lock(), self._log())

    def run_foreground(self) -> int:
        """The same steps, signals and lock without detaching; streams that are not given stay.

        :returns: the exit status that `run`'s outcome means
        :raises DaemonError: as `start` does
        """
        self._context = self._make_context(detach=False)
        require_work(self)
        self._context.open()
        return self._serve(self._work)

    def explain(self) -> Explanation:
        """What each step of a start would do, and why; see `DaemonContext.explain`.

        :raises OptionError: an option can't be used
        """
        context = self._context if self._is_daemon() else None
        return (context or self._make_context()).explain()

    def main(
        self, argv: list[str] | None = None, *, parser: ArgumentParser | None = None
    ) -> NoReturn:
        """Give a script the verbs start, stop, restart, reload, status and run.

        :param argv: the arguments; those of the command line by default
        :param parser: with the script's own options; it gets the verb and ``--json`` added. All are
            in `arguments` before the verb is carried out
        :raises SystemExit: with the LSB's status
        """
        from .verbs import main

        sys.exit(main(self, argv, parser))

    # --- the recipe's other methods

    def daemonize(self) -> None:
        """Become the daemon. Called by `start`; by itself it returns in the ready daemon only."""
        context = self._make_context()
        launched = context.launch()
        if launched is not None and self._launching:
            # As an exception, so that an override of this method goes on in the daemon only.
            raise _Launched(launched.pid)
        if launched is not None:
            os._exit(0)
        self._context = context
        if self._launching:
            forget_launcher()
        else:
            atexit.register(Daemon.delpid, self)  # nobody else removes the status file then
            self._say_ready(None)


class _Launched(BaseException):
    """In the launcher: the daemon is ready."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

"""What published callers do with python-daemon goes on working: subclasses."""

from __future__ import annotations

from tests.helpers import support
from tests.helpers.habits import log, run, stop


def test_a_subclass_with_its_own_terminate_exit_and_positional_init(box: support.Sandbox) -> None:
    run(
        box,
        """
        import sys
        from daemon import DaemonContext

        class Feed(DaemonContext):
            def __init__(self, name, chroot_directory=None, working_directory="/", *args, **kw):
                self.name = name
                DaemonContext.__init__(self, chroot_directory, working_directory, *args, **kw)

            def terminate(self, signal_number, stack_frame):
                print("terminate", signal_number, flush=True)
                sys.exit(0)

            def __exit__(self, *exc_info):
                print("exit", exc_info[0].__name__, self.is_open, flush=True)
                super().__exit__(*exc_info)
                print("closed", self.is_open, flush=True)

        out = open("log", "w")
        with Feed("feed", None, ".", 0, None, None, False, True, True, None, "d.pid", None, out,
                  out) as feed:
            print(feed.name, feed.umask, flush=True)
            feed.sleep()
        """,
    )
    log(box, "feed 0")  # a signal that comes before the body leaves nothing to exit
    stop(box)
    log(box, "feed 0", "terminate 15", "exit SystemExit True", "closed False")


def test_a_subclass_that_sets_options_before_it_calls_init_or_never_does(
    box: support.Sandbox,
) -> None:
    run(
        box,
        """
        from daemon import DaemonContext
        class Feed(DaemonContext):
            uid = gid = None
            detach_process = True
            def __init__(self):
                self.stage = "early"
                super().__init__(detach_process=True, stdout="log")
        with Feed() as feed:
            print(feed.stage, feed.is_open, flush=True)
        """,
    )
    log(box, "early True")


def test_terminate_set_on_the_instance_is_the_handler(box: support.Sandbox) -> None:
    run(
        box,
        """
        import sys
        from daemon import DaemonContext
        def bye(number, frame):
            print("bye", number, flush=True)
            sys.exit(0)
        context = DaemonContext(pidfile="d.pid", detach_process=True, stdout="log")
        context.terminate = bye
        context.open()
        print("up", flush=True)
        context.sleep()
        """,
    )
    log(box, "up")
    stop(box)
    log(box, "up", "bye 15")


def test_a_subclass_may_have_the_methods_of_a_runner(box: support.Sandbox) -> None:
    """Under the names that python-daemon's own runner has them."""
    run(
        box,
        """
        import signal, time
        import daemon, daemon.pidfile
        class Feed(daemon.DaemonContext):
            _stop = False
            def _start(self):
                with self:
                    while not self._stop:
                        time.sleep(0.01)
                    with open("log", "a") as log:
                        print("stopped", file=log)
            def stop(self, *signal):
                self._stop = True
        Feed(working_directory=".", pidfile=daemon.pidfile.PIDLockFile("d.pid"),
             signal_map={signal.SIGTERM: "stop"})._start()
        """,
    )
    stop(box)
    log(box, "stopped")


def test_own_attributes_are_kept_and_read_from_with_as(box: support.Sandbox) -> None:
    run(
        box,
        """
        from daemon import DaemonContext
        context = DaemonContext(detach_process=True, stdout="log")
        context.settings = {"interval": 5}
        with context as same:
            same.rounds = 1
            print(same.settings["interval"], context.rounds, same is context, flush=True)
        """,
    )
    log(box, "5 1 True")

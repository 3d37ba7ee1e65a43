"""What every program does beside becoming a daemon: set the scene, and tell what happened when.

Kept to what the interpreter has loaded at its start anyway (`os`) or has built in (`time`), so that
it costs all contenders the same and next to nothing. Times are CLOCK_MONOTONIC, which all
processes share.
"""

import os
import sys
import time

_get = os.environ.get
pidfile = _get("BENCH_PIDFILE")
signals = bool(_get("BENCH_SIGNALS"))
kept = []  # descriptors that stay open
_begun = _imported = _opening = 0
_before = (0, 0, 0, 0)


def begin():
    """The first line: before anything of the contender is imported."""
    global _begun, _before
    for name in filter(None, _get("BENCH_PRELOAD", "").split(",")):
        __import__(name)
    if _get("BENCH_DESCRIPTORS"):
        _open_descriptors(int(_get("BENCH_DESCRIPTORS")))
    if _get("BENCH_HEAP"):
        _fill_heap(*map(int, _get("BENCH_HEAP").split(",")))
    if _get("BENCH_STAGE") == "import":
        modules, memory = len(sys.modules), _unique()
        # Last what the looking itself would change.
        _before = (modules, memory, _faults(), time.process_time_ns())
    if _get("BENCH_STAGE") == "calls":
        _log_calls()
    _begun = time.monotonic_ns()


def imported():
    """Imported; what comes next constructs."""
    global _imported
    _imported = time.monotonic_ns()
    if _get("BENCH_RACE_FROM") == "imported":
        _race(int(_get("BENCH_RACE")))


def before_open():
    """Imported and constructed; the next line detaches."""
    global _opening
    if _get("BENCH_RACE_FROM") == "constructed":
        _race(int(_get("BENCH_RACE")))
    _opening = time.monotonic_ns()
    if _get("BENCH_STAGE") == "import":
        now = time.process_time_ns()
        modules, memory, faults, cpu = _before
        faults = _faults() - faults
        _tell(
            _imported - _begun,
            _opening - _begun,
            now - cpu,
            len(sys.modules) - modules,
            _unique() - memory,
            faults,
        )
        os._exit(0)


def running(idle=None):
    """The first line of the body; then the daemon is idle until it is stopped."""
    now = time.monotonic_ns()
    sys.setprofile(None)
    if _get("BENCH_STAGE") == "modules":
        _tell(os.getpid(), *(name for name in sys.modules if name.isprintable()))
    else:
        _tell(os.getpid(), _begun or now, _opening or now, now)
    then = _get("BENCH_THEN")
    if then == "exit":
        os._exit(0)
    if then == "idle" and idle is not None:
        idle()
        return
    while True:
        time.sleep(1 if then == "tick" else 1e6)


def stopped(began):
    """For a program that stops a daemon: it is back."""
    _tell(began, time.monotonic_ns())


def signal_map():
    """What a program that wants to hear signals maps."""
    import signal

    return {
        signal.SIGTERM: on_signal,
        signal.SIGHUP: on_signal,
        signal.SIGTSTP: None,
        signal.SIGTTIN: None,
        signal.SIGTTOU: None,
    }


def on_signal(number, frame):
    raise SystemExit(0)


def _tell(*words):
    fifo = os.open(os.environ["BENCH_FIFO"], os.O_WRONLY)
    os.write(fifo, (" ".join(map(str, words)) + "\n").encode())
    os.close(fifo)


def _race(count):
    """From here on there are so many of this process; all go on at the same moment."""
    gate, opener = os.pipe()
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os.close(opener)
            os.read(gate, 1)  # until the last holder of the other end has closed it
            os.close(gate)
            return
        pids.append(pid)
    _tell(time.monotonic_ns(), *pids)
    os._exit(0)


def _log_calls():
    """Of each code that runs from here on, whichever process runs it, the first call in each.

    By path, not by a descriptor: that would have to be preserved, which is not a plain start.
    """
    path, seen = os.environ["BENCH_FIFO"] + ".calls", set()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND

    def log(frame, event, argument):
        code = frame.f_code
        called = (os.getpid(), code)
        if event != "call" or called in seen:
            return
        seen.add(called)
        words = called[0], frame.f_globals.get("__name__"), code.co_firstlineno, code.co_qualname
        fd = os.open(path, flags, 0o600)
        os.write(fd, (" ".join(map(str, words)) + "\n").encode())
        os.close(fd)

    sys.setprofile(log)


def _open_descriptors(count):
    null = os.open(os.devnull, os.O_RDWR)
    opened = [os.dup(null) for _ in range(count)]
    kept.extend(opened[::2])


def _fill_heap(size, objects):
    import gc

    global heap, things
    gc.disable()
    heap = b"x" * size
    things = [[] for _ in range(objects)]
    gc.enable()
    gc.collect()  # now, and not in the middle of what is measured


def _faults():
    """The page faults of this process so far."""
    with open("/proc/self/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[7])


def _unique():
    with open("/proc/self/smaps_rollup", "rb") as file:
        return 1024 * sum(int(line.split()[1]) for line in file if line.startswith(b"Private_"))

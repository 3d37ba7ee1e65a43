"""Exactly the preserved descriptors are open in the daemon, whatever the limits and the kernel."""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import support

HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

PROGRAM = """
import ctypes, os, resource, select, socket, sys
from daemon_context import DaemonContext
from tests.helpers.launching import report
from tests.helpers.holders import double_fork

how, what, count, highest, lowered, seccomp = sys.argv[1:]
count, highest, lowered, seccomp = map(int, (count, highest, lowered, seccomp))
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
except (OSError, ValueError):  # the limit that a preloaded library reports
    pass
with open("data", "w") as data:
    data.write("x")

owners, numbers = [], []
for n in range(count):
    if what == "files" or (what == "both" and n % 3):
        owners.append(open("data", "rb", 0))
        numbers.append(owners[-1].fileno())
    else:
        numbers.append(os.open("data", os.O_RDONLY))
if highest:
    numbers.append(os.dup2(numbers[0], highest))
path = os.open("data", os.O_PATH), os.open("data", os.O_PATH)
preserved = [*numbers[::2], path[0], 77777]  # one is not open: that is no error
closed = set(numbers) - set(preserved)

if seccomp:
    # BPF: load the number of the system call; if it is close_range, return that error.
    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_char_p)]
    instructions = [(0x20, 0, 0, 0), (0x15, 0, 1, 436), (0x06, 0, 0, 0x50000 | seccomp),
                    (0x06, 0, 0, 0x7FFF0000)]
    import struct
    program = b"".join(struct.pack("HBBI", *each) for each in instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.byref(Filter(4, program)), 0, 0) == 0, ctypes.get_errno()
    assert libc.syscall(436, 1 << 30, 1 << 30, 0) == -1 and ctypes.get_errno() == seccomp
if lowered:
    # The hard limit only where it can be raised again: what is above stays open in any case.
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowered, hard))

def closes():
    try:
        return ctypes.CDLL(None).closes_counted()
    except AttributeError:
        return 0

before = closes()
context = DaemonContext(files_preserve=preserved, detach_process=True, working_directory=".")
if how == "naive":
    double_fork()
else:
    context.open()
calls = closes() - before

def works(fd):
    try:
        return os.pread(fd, 1, 0) == b"x"
    except OSError:
        return False

def is_open(fd):
    try:
        return bool(os.fstat(fd))
    except OSError:
        return False

if lowered:
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
if how == "naive":
    report("daemon", {"pid": os.getpid(), "closes": calls, "preserved": numbers[::2]})
else:
    files_closed = [not works(file.fileno()) if not file.closed else True for file in owners
                    if not file.closed and file.fileno() in closed]
    report("daemon", {
        "pid": os.getpid(),
        "closes": calls,
        "preserved": sorted(numbers[::2]),
        "unusable": [fd for fd in numbers[::2] if not works(fd)],
        "usable": [fd for fd in closed if works(fd)],
        "path": [works(path[0]), is_open(path[0])],
        "path only": path,
        "reserved": [item.fd for item in context.closed_descriptors if item.owner is None],
        "owned": [item.fd for item in context.closed_descriptors if item.owner is not None],
        "open files": [file.fileno() for file in owners if not file.closed],
    })
import signal
signal.pause()
"""

#: Reports a limit of its own, because raising the hard one needs CAP_SYS_RESOURCE; counts `close`.
PRELOADED = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static long limit(void) { return atol(getenv("REPORTED_LIMIT")); }
static int closes;

int closes_counted(void) { return closes; }
int close(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "close");
    closes++;
    return real(fd);
}
int getrlimit(__rlimit_resource_t what, struct rlimit *found) {
    static int (*real)(__rlimit_resource_t, struct rlimit *);
    if (!real) real = dlsym(RTLD_NEXT, "getrlimit");
    int status = real(what, found);
    if (what == RLIMIT_NOFILE) found->rlim_cur = found->rlim_max = limit();
    return status;
}
int getrlimit64(__rlimit_resource_t what, struct rlimit64 *found) {
    return getrlimit(what, (struct rlimit *) found);
}
long sysconf(int name) {
    static long (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "sysconf");
    return name == _SC_OPEN_MAX ? limit() : real(name);
}
"""

NO_PROC = ["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs none /proc; exec "$@"', "sh"]


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that reports a limit, compiled."""
    place = tmp_path_factory.mktemp("preloaded")
    source, library = place / "limit.c", place / "limit.so"
    source.write_text(PRELOADED)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def reporting(library: Path, limit: int) -> dict[str, str]:
    """The environment in which the limit on descriptors seems to be that one."""
    return {"LD_PRELOAD": str(library), "REPORTED_LIMIT": str(limit)}


def start(
    box: support.Sandbox,
    *,
    how: str = "ours",
    what: str = "both",
    count: int = 100,
    highest: int = 0,
    lowered: int = 0,
    seccomp: int = 0,
    **kwargs: Any,
) -> dict[str, Any]:
    """Start the program with so many descriptors open; what its daemon says."""
    done = box.run(PROGRAM, how, what, count, highest, lowered, seccomp, **kwargs)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    facts: dict[str, Any] = json.loads(box.text("daemon"))
    return facts


def data_descriptors(box: support.Sandbox, pid: int) -> list[int]:
    """The numbers under which a process has the data file open, as the kernel sees it."""
    wanted = str(box.path / "data")
    return sorted(fd for fd, target in support.descriptors(pid).items() if target == wanted)


def is_exact(box: support.Sandbox, facts: dict[str, Any], lowered: int = 0) -> None:
    """Check that what is preserved is open and works, and nothing else; and what became of that."""
    table = support.descriptors(facts["pid"])
    kept, dropped = facts["path only"]
    assert data_descriptors(box, facts["pid"]) == sorted([*facts["preserved"], kept])
    assert (facts["unusable"], facts["usable"], facts["path"]) == ([], [], [False, True])
    assert set(facts["open files"]) <= set(facts["preserved"])
    # Nothing but the standard streams, what is preserved, and reserved numbers.
    rest = {fd: target for fd, target in table.items() if target != str(box.path / "data")}
    assert set(rest.values()) == {"/dev/null"}
    # Above the limit a number can't be reserved, and nobody gets it either.
    assert set(rest) == {0, 1, 2, *(fd for fd in facts["reserved"] if fd < (lowered or fd + 1))}
    assert dropped in facts["reserved"] or "no proc" in facts


@pytest.mark.parametrize("what", ["files", "numbers"])
def test_ten_thousand_descriptors(box: support.Sandbox, what: str) -> None:
    facts = start(box, what=what, count=10_000)
    is_exact(box, facts)
    assert len(facts["preserved"]) == 5_000
    assert len(facts["owned"]) == (5_000 if what == "files" else 0)
    assert len(facts["reserved"]) == (1 if what == "files" else 5_001)


@pytest.mark.parametrize("count", [10, 100, 300, 1500])
def test_any_number_of_descriptors(box: support.Sandbox, count: int) -> None:
    is_exact(box, start(box, count=count))


@pytest.mark.parametrize("limit", [1 << 20, 1 << 30])
@pytest.mark.parametrize("seccomp", [0, 1, 38])
def test_huge_limits_cost_nothing(
    box: support.Sandbox, preloaded: Path, limit: int, seccomp: int
) -> None:
    """With a limit as reported by a preloaded library; `close_range` works, or is refused."""
    facts = start(box, seccomp=seccomp, env=reporting(preloaded, limit))
    is_exact(box, facts)
    assert facts["closes"] < 2_000


def test_a_double_fork_by_hand_closes_up_to_the_limit(
    box: support.Sandbox, preloaded: Path
) -> None:
    """The reason for the test above, at an eighth of the smaller limit."""
    facts = start(box, how="naive", env=reporting(preloaded, 1 << 17))
    assert facts["closes"] >= 1 << 17


@pytest.mark.parametrize("seccomp", [1, 38])
def test_close_range_refused(box: support.Sandbox, seccomp: int) -> None:
    is_exact(box, start(box, count=1_000, seccomp=seccomp))


@pytest.mark.root
@pytest.mark.parametrize("seccomp", [0, 38])
@pytest.mark.parametrize(("count", "lowered"), [(100, 0), (10_000, 0), (20, 64)])
def test_proc_hidden(box: support.Sandbox, seccomp: int, count: int, lowered: int) -> None:
    facts = start(box, count=count, seccomp=seccomp, lowered=lowered, highest=5000 * bool(lowered),
                  prefix=NO_PROC)  # fmt: skip
    facts["no proc"] = "an O_PATH descriptor can't be seen, and is closed without being reserved"
    is_exact(box, facts)


@pytest.mark.root
@pytest.mark.parametrize("limit", [1 << 20, 1 << 30])
def test_proc_hidden_and_a_huge_limit(box: support.Sandbox, preloaded: Path, limit: int) -> None:
    facts = start(box, prefix=NO_PROC, env=reporting(preloaded, limit))
    facts["no proc"] = "as above"
    is_exact(box, facts)


@pytest.mark.parametrize("preserve_it", [True, False])
@pytest.mark.parametrize("highest", [5000, 70_001])
def test_a_descriptor_above_a_lowered_limit(
    box: support.Sandbox, highest: int, preserve_it: bool
) -> None:
    """Where the hard limit is below 70 001, the highest number that it allows."""
    highest = min(highest, HARD - 1)
    # Every second one is preserved, beginning with the first.
    facts = start(box, count=20 if preserve_it else 21, highest=highest, lowered=64)
    is_exact(box, facts, lowered=64)
    assert (highest in facts["preserved"]) == preserve_it


def test_a_double_fork_by_hand_misses_what_is_above_a_lowered_limit(box: support.Sandbox) -> None:
    facts = start(box, how="naive", count=20, highest=5000, lowered=64)
    assert 5000 in data_descriptors(box, facts["pid"])

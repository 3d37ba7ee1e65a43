"""spawn by name: the fresh interpreter is one, runs as this one does, and answers for itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest

from tests.helpers import support

HELPERS = """
    import json, os, sys, warnings
    from pathlib import Path
    PLACE = Path(__file__).parent
    def facts():
        found = {
            "flags": {name: getattr(sys.flags, name) for name in dir(sys.flags)
                      if name[0] != "_" and isinstance(getattr(sys.flags, name), int)},
            "xoptions": sys._xoptions, "warnoptions": sys.warnoptions,
            "filters": [str(f[:3]) for f in warnings.filters], "user": sys.flags.no_user_site,
        }
        (PLACE / "facts.tmp").write_text(json.dumps(found))
        (PLACE / "facts.tmp").rename(PLACE / "facts")
"""
SPAWN = """
    import json, sys
    sys.path.insert(0, {place!r})
    sys.path.append({root!r})
    import helpers
    from daemon_context import DaemonContext
    helpers.facts()
    (helpers.PLACE / "facts").rename(helpers.PLACE / "ours")
    DaemonContext().spawn("helpers:facts").wait(20)
"""


def run(
    box: support.Sandbox, *options: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Spawn by name from an interpreter with these options."""
    box.script(HELPERS, "helpers.py")
    script = box.script(SPAWN.format(place=str(box.path), root=str(support.ROOT)))
    return subprocess.run(
        [sys.executable, *options, str(script)],
        cwd=box.path, env={**box.environ, **(env or {})}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        ["-I"], ["-E"], ["-s"], ["-S"], ["-P"], ["-O"], ["-OO"], ["-B"], ["-b"], ["-bb"],
        ["-Werror"], ["-Wignore::DeprecationWarning", "-Wdefault"], ["-Xdev"], ["-Xutf8=0"],
        ["-Xmine=a=b", "-Xint_max_str_digits=1000", "-Xno_debug_ranges"], ["-Xfaulthandler"],
        ["-Xwarn_default_encoding"], ["-I", "-OO", "-Werror", "-Xmine"], [],
    ],
)  # fmt: skip
def test_the_interpreter_runs_as_ours_does(box: support.Sandbox, options: list[str]) -> None:
    done = run(box, *options)
    assert done.returncode == 0, done.stderr
    ours, its = json.loads(box.text("ours")), json.loads(box.text("facts"))
    ours["flags"]["safe_path"] = True  # always: see DaemonContext.spawn
    assert its["flags"] == ours["flags"]
    assert its["xoptions"] == ours["xoptions"]
    assert set(its["warnoptions"]) == set(ours["warnoptions"])
    assert its["filters"] == ours["filters"]


@pytest.mark.parametrize("options", [["-I"], ["-E"], ["-E", "-s"]])
def test_who_may_set_the_environment_runs_no_code(box: support.Sandbox, options: list[str]) -> None:
    (box.path / "evil").mkdir()
    box.script(f"open({str(box.path / 'owned')!r}, 'w')", "evil/sitecustomize.py")
    env = {"PYTHONPATH": str(box.path / "evil"), "PYTHONWARNINGS": "error"}
    done = run(box, *options, env=env)
    assert done.returncode == 0, done.stderr
    assert not (box.path / "owned").exists()
    assert json.loads(box.text("facts"))["warnoptions"] == []


REFUSED = """
    import json, os, sys
    from daemon_context import DaemonContext, DaemonError
    sys.path.insert(0, os.getcwd())
    with open("runs", "a") as file:
        print(os.getpid(), file=file)
    {change}
    try:
        DaemonContext().spawn("helpers:facts")
    except DaemonError as error:
        print(error)
"""
CHANGES = {
    "frozen": ("sys.frozen = True", "is no Python but this program"),
    "compiled": ("__compiled__ = True", "is no Python but this program"),
    "none": ("sys.executable = None", "sys.executable is empty"),
    "empty": ("sys.executable = ''", "sys.executable is empty"),
    "another": ("sys.executable = '/bin/true'", "'/bin/true', ended with status 0 and no answer"),
    "missing": ("sys.executable = '/nope'", "cannot start '/nope': No such file"),
    "itself": ("sys.executable = os.path.abspath('itself')", "no answer"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_no_interpreter_is_refused(box: support.Sandbox, change: str) -> None:
    box.script(HELPERS, "helpers.py")
    code, words = CHANGES[change]
    if change == "itself":  # a freezer that nobody knows
        program = f'#!/bin/sh\nexec {sys.executable} program.py "$@"\n'
        (box.path / "itself").write_text(program)
        (box.path / "itself").chmod(0o755)
    done = box.run(REFUSED.format(change=code), timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
    assert words in done.stdout
    runs = (box.path / "runs").read_text().split()
    assert len(runs) == (2 if change == "itself" else 1)
    box.settled()


EMBEDDING = """
    #include <Python.h>
    int main(int argc, char **argv) {
        Py_Initialize();
        FILE *file = fopen("program.py", "r");
        PyRun_SimpleString("import sys; sys.executable = '%s'" );
        int status = PyRun_SimpleFile(file, "program.py");
        Py_Finalize();
        return status != 0;
    }
"""


def test_a_program_that_has_python_built_in_is_refused(box: support.Sandbox) -> None:
    """And says that it is its own interpreter, as some do."""
    header = Path(sysconfig.get_path("include")) / "Python.h"
    library = Path(sysconfig.get_config_var("LIBDIR") or "") / (
        sysconfig.get_config_var("LDLIBRARY") or ""
    )
    if not header.exists() or not library.exists() or shutil.which("gcc") is None:
        pytest.skip("needs the headers and the library of this Python, and gcc")
    binary = box.path / "built-in"
    (box.path / "main.c").write_text(textwrap.dedent(EMBEDDING) % binary)
    libraries = (sysconfig.get_config_var("LIBS") or "").split()
    subprocess.run(
        ["gcc", "-o", binary, box.path / "main.c", f"-I{header.parent}", str(library),
         f"-Wl,-rpath,{library.parent}", "-Wl,-export-dynamic", *libraries, "-lm"],
        check=True,
    )  # fmt: skip
    box.script(HELPERS, "helpers.py")
    box.script(REFUSED.format(change=""))
    env = {**os.environ, **box.environ, "PYTHONHOME": sys.base_prefix}
    done = subprocess.run(
        [binary], cwd=box.path, env=env, capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "is no Python but this program" in done.stdout
    assert len((box.path / "runs").read_text().split()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["--onedir", "--onefile"])
def test_a_bundle_of_pyinstaller_is_refused(box: support.Sandbox, kind: str) -> None:
    bundler = shutil.which("pyinstaller", path=bundlers())
    if bundler is None:
        pytest.skip("needs PyInstaller, beside this Python or on the PATH")
    box.script(HELPERS, "helpers.py")
    script = box.script(REFUSED.format(change=""))
    subprocess.run(
        [bundler, kind, "--log-level=ERROR", "--collect-submodules=daemon_context",
         "--paths", str(support.ROOT), str(script)],
        cwd=box.path, check=True, capture_output=True, timeout=300,
        env={**box.environ, "PYINSTALLER_CONFIG_DIR": str(box.path / "config")},
    )  # fmt: skip
    binary = box.path / "dist" / "program"
    done = subprocess.run(
        [binary / "program" if kind == "--onedir" else binary],
        cwd=box.path, env=box.environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "is no Python but this program" in done.stdout
    assert "give the function itself" in done.stdout
    assert len((box.path / "runs").read_text().split()) == 1


def bundlers() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


BROKEN = """
    import os, signal, sys
    from daemon_context import DaemonContext, DaemonError
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.executable = os.path.abspath("reader")
    try:
        DaemonContext().spawn("helpers:facts", "x" * 300_000)
    except DaemonError as error:
        print(error)
    assert not signal.sigpending()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
"""


@pytest.mark.parametrize(
    "reads", ["", "head -c 70000 <&$(ls /proc/self/fd | sed -n 4p) >/dev/null"]
)
def test_an_interpreter_that_does_not_listen_is_an_error(box: support.Sandbox, reads: str) -> None:
    """With SIGPIPE at its default, at the first write or in the middle of it."""
    (box.path / "reader").write_text(f"#!/bin/sh\n{reads}\nexit 3\n")
    (box.path / "reader").chmod(0o755)
    done = box.run(BROKEN)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ended with status 3 and no answer" in done.stdout


SHORT = """
    import fcntl, os, signal, sys, threading, time
    from daemon_context.report.frames import READY, send
    before = {before}
    {prepare}
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.close(writer)
        size = fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ)
        while int.from_bytes(fcntl.ioctl(reader, 0x541B, bytes(4)), sys.byteorder) < size:
            time.sleep(0.001)
        os._exit(0)
    os.close(reader)
    assert not send(writer, READY, b"x" * 200_000)
    os.waitpid(child, 0)
    assert signal.sigpending() == before
"""


def test_a_reader_that_leaves_in_the_middle_does_not_kill(box: support.Sandbox) -> None:
    prepare = "signal.signal(signal.SIGPIPE, signal.SIG_DFL)"
    done = box.run(SHORT.format(before="set()", prepare=prepare))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_signal_of_the_programs_own_stays(box: support.Sandbox) -> None:
    prepare = (
        "signal.pthread_sigmask(signal.SIG_BLOCK, before);"
        "signal.pthread_kill(threading.get_ident(), signal.SIGPIPE)"
    )
    done = box.run(SHORT.format(before="{signal.SIGPIPE}", prepare=prepare))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.returncode != -signal.SIGPIPE


ANSWER = """
    import json, os, sys
    from daemon_context import DEFAULT_STEPS, DaemonContext, DaemonError, Step

    class Lie(Step):
        def apply(self, walk):
            said = {{"pid": int({victim}), "status": "lies"}}
            for fd in range(3, 1024):
                try:
                    os.write(fd, json.dumps(said).encode() + b"\\n")
                except OSError:
                    pass

    if __name__ == "__main__":
        steps = DEFAULT_STEPS.insert_after("change-owner", __import__("program").Lie())
        context = DaemonContext(steps=steps, files_preserve=range(1024), {options})
        try:
            print("handle", context.spawn("time:sleep", 600).pid)
        except DaemonError as error:
            print("error")
"""


@pytest.mark.root
def test_a_hostile_daemon_can_not_answer_in_the_interpreters_place(
    open_box: support.Sandbox,
) -> None:
    """The handle would have an innocent killed, by root."""
    box = open_box
    innocent = box.popen(box.script("import sys; sys.stdin.read()", "innocent.py"))
    done = box.run(ANSWER.format(victim=innocent.pid, options='uid="nobody"'))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("error",), done.stdout
    assert innocent.communicate("")[0] == ""

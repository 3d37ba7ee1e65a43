"""The examples, run as a user would run them, from a copy outside the repository."""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.helpers import support


@pytest.fixture
def examples(box: support.Sandbox) -> Path:
    """A copy of the examples, which nothing ties to the repository."""
    return Path(shutil.copytree(support.ROOT / "examples", box.path / "examples"))


def is_daemon(pid: int) -> bool:
    """Whether it has a session that it does not lead, no terminal, and nobody waiting for it."""
    _, _, _, session, terminal, *_ = support.stat(pid)
    return int(session) != pid and terminal == "0" and support.descriptors(pid)[0] == os.devnull


def end(box: support.Sandbox, pid: int, pidfile: str) -> None:
    """SIGTERM must end it, and its pid file with it."""
    os.kill(pid, signal.SIGTERM)
    support.gone(pid)
    assert not (box.path / pidfile).exists()
    box.settled()


# --- the file server


def serve(
    box: support.Sandbox, examples: Path, verb: str, *args: str
) -> subprocess.CompletedProcess[str]:
    return box.run(examples / "file_server.py", verb, "--state", box.path / "state", *args)


@pytest.mark.needs("ps")
def test_file_server_demo_shows_a_daemon_and_how_to_stop_it(
    box: support.Sandbox, examples: Path
) -> None:
    (box.path / "hello.txt").write_text("hello\n")
    done = serve(box, examples, "demo", "--directory", str(box.path))
    assert (done.returncode, done.stderr) == (0, "")
    pid = box.pid("state/file-server.pid")
    assert is_daemon(pid)
    for shown in (f"\n  {pid}\n", f" {pid} ", "200 OK", "hello.txt", "status 0"):
        assert shown in done.stdout
    url = re.search(r"http://\S+", done.stdout)
    assert url
    with urllib.request.urlopen(f"{url[0]}hello.txt") as page:
        assert page.read() == b"hello\n"
    assert "GET /hello.txt" in box.text("state/file-server.log")
    stop = shlex.split(done.stdout.splitlines()[-1])
    said = subprocess.run(stop, env=box.environ, capture_output=True, text=True, check=True)
    assert said.stdout == f"pid {pid} is gone\n"
    assert not (box.path / "state/file-server.pid").exists()
    box.settled()


def test_file_server_runs_once_and_says_so(box: support.Sandbox, examples: Path) -> None:
    assert serve(box, examples, "status").returncode == 3
    assert serve(box, examples, "start", "--detach").returncode == 0
    pid = box.pid("state/file-server.pid")
    second = serve(box, examples, "start", "--detach")
    assert (second.returncode, second.stdout) == (1, "")
    assert f"already running with pid {pid}" in second.stderr
    running = serve(box, examples, "status")
    assert (running.returncode, running.stdout) == (0, f"running with pid {pid}\n")
    assert serve(box, examples, "stop").returncode == 0
    assert serve(box, examples, "stop").stdout == "not running\n"
    assert serve(box, examples, "status").stdout == "not running\n"
    box.settled()


def test_file_server_asks_and_stops_without_making_a_place(
    box: support.Sandbox, examples: Path
) -> None:
    assert serve(box, examples, "status").stdout == "not running\n"
    assert serve(box, examples, "stop").stdout == "not running\n"
    assert not (box.path / "state").exists()


def test_file_server_demo_shows_the_examples_and_no_repository(
    box: support.Sandbox, examples: Path
) -> None:
    (box.path / ".git").mkdir()
    done = serve(box, examples, "demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert "asyncio_service.py" in done.stdout
    assert ".git" not in done.stdout
    again = serve(box, examples, "demo")
    assert again.returncode == 1
    assert again.stdout == f"To stop the one that runs:\n{done.stdout.splitlines()[-1]}\n"
    assert serve(box, examples, "stop").returncode == 0


def test_file_server_demo_goes_past_a_proxy_and_its_command_works_in_any_directory(
    box: support.Sandbox, examples: Path
) -> None:
    state = box.path / "my state; echo"
    proxy = {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}  # nobody is there
    done = box.run(examples / "file_server.py", "demo", "--state", state, env=proxy)
    assert (done.returncode, done.stderr) == (0, "")
    stop = done.stdout.splitlines()[-1]
    said = subprocess.run(stop, shell=True, env=box.environ, capture_output=True, text=True)
    assert "is gone\n" in said.stdout
    box.settled()


def test_file_server_refuses_a_directory_that_is_not_there(
    box: support.Sandbox, examples: Path
) -> None:
    for verb in ("start", "demo"):
        done = serve(box, examples, verb, "--detach", "--directory", "/nope")
        assert (done.returncode, done.stdout) == (1, "")
        assert "'/nope': No such file or directory; give another directory with --" in done.stderr
    box.settled()


@pytest.mark.parametrize("option", [["--port", "99999"], ["--state", "/proc/nope"]])
def test_file_server_has_one_line_for_what_can_not_be_used(
    box: support.Sandbox, examples: Path, option: list[str]
) -> None:
    done = serve(box, examples, "start", *option)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("file_server: cannot ")
    assert done.stderr.endswith(f" with {option[0]}\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.root
def test_file_server_without_a_home_asks_for_a_place(
    open_box: support.Sandbox, examples: Path
) -> None:
    script = open_box.script("""
        import os, runpy, sys
        from tests.helpers.support import preload
        preload()
        import argparse, http.server, shlex, shutil, urllib.request
        os.environ.pop("HOME", None)
        os.environ.pop("XDG_STATE_HOME", None)
        os.setresuid(54321, 54321, 54321)
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
    """)
    example = shutil.copy(examples / "file_server.py", open_box.path)
    done = open_box.run(script, example, "start")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("file_server: cannot find a place")
    assert done.stderr.endswith("; give a directory with --state\n")


def test_file_server_says_that_its_port_is_taken(box: support.Sandbox, examples: Path) -> None:
    started = serve(box, examples, "start", "--detach")
    port = started.stdout.strip(" /\n").rpartition(":")[2]
    other = ("--state", str(box.path / "other"), "--port", port, "--detach")
    second = box.run(examples / "file_server.py", "start", *other)
    assert (second.returncode, second.stdout) == (1, "")
    assert f"port {port}: Address already in use; give another one with --port" in second.stderr
    assert not (box.path / "other/file-server.pid").exists()
    assert serve(box, examples, "stop").returncode == 0


def test_file_server_stop_spares_whoever_has_the_number_today(
    box: support.Sandbox, examples: Path
) -> None:
    innocent = subprocess.Popen(["sleep", "100"], env=box.environ)
    try:
        (box.path / "state").mkdir()
        (box.path / "state/file-server.pid").write_text(f"{innocent.pid}\n")
        assert serve(box, examples, "stop").stdout == "not running\n"
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


@pytest.mark.root
def test_file_server_binds_as_root_and_serves_as_another_user(
    box: support.Sandbox, examples: Path
) -> None:
    # Port 80 in a network of the test's own, and files in a file system of its own: others may
    # look into it, while pytest's directories are closed to them.
    script = box.script("""
        import fcntl, os, socket, struct, subprocess, sys, urllib.error, urllib.request
        SIOCSIFFLAGS, UP_AND_RUNNING = 0x8914, 0x41
        request = struct.pack("16sH14x", b"lo", UP_AND_RUNNING)
        fcntl.ioctl(socket.socket(), SIOCSIFFLAGS, request)
        subprocess.run(["mount", "-t", "tmpfs", "none", "/mnt"], check=True)
        for name, mode in ("open", 0o644), ("secret", 0o600):
            open(f"/mnt/{name}", "w").write(name)
            os.chmod(f"/mnt/{name}", mode)
        server = [sys.executable, "examples/file_server.py"]
        state = ["--state", "state"]
        public = ["--directory", "/mnt", "--port", "80", "--user", "nobody", "--detach"]
        subprocess.run([*server, "start", *state, *public], check=True)
        try:
            print(open(f"/proc/{open('state/file-server.pid').read().strip()}/status").read())
            print(urllib.request.urlopen("http://127.0.0.1/open").read())
            urllib.request.urlopen("http://127.0.0.1/secret")
        except urllib.error.HTTPError as error:
            print(error.code)
        finally:
            subprocess.run([*server, "stop", *state], check=True)
    """)
    done = box.run(script, prefix=["unshare", "-n", "-m"])
    assert done.returncode == 0, done.stderr
    uid, gid = pwd.getpwnam("nobody")[2:4]
    ids = re.findall(r"^([UG])id:((?:\t\d+){4})$", done.stdout, re.M)
    assert ids == [("U", f"\t{uid}" * 4), ("G", f"\t{gid}" * 4)]
    assert re.search(r"^CapEff:\t0+$", done.stdout, re.M)
    assert "b'open'\n404\n" in done.stdout
    assert "is gone" in done.stdout
    box.settled()


# --- the others


def test_sigchld_example_gets_all_statuses_right_and_leaves_no_zombie(
    box: support.Sandbox, examples: Path
) -> None:
    assert box.run(examples / "sigchld.py").returncode == 0
    pid = box.pid("sigchld.pid")
    assert is_daemon(pid)
    log = support.until(lambda: "false" in (text := box.text("sigchld.log")) and text)
    assert sorted(re.findall(r"worker \d+ ended with status (\d)", log)) == ["0", "3"]
    assert "false ended with status 1" in log
    assert Path(f"/proc/{pid}/task/{pid}/children").read_text() == ""
    end(box, pid, "sigchld.pid")


def test_custom_step_example_applies_both_steps(box: support.Sandbox, examples: Path) -> None:
    done = box.run(examples / "custom_step.py", ".", 300)
    assert done.returncode == 0
    assert re.search(r"^5 +raise-fd-limit +daemon +set the limit", done.stdout, re.M)
    assert "set umask" not in done.stdout
    pid = box.pid("custom-step.pid")
    assert is_daemon(pid)
    assert support.status(pid)["NoNewPrivs"] == "1"
    assert re.search(r"open files +300 ", Path(f"/proc/{pid}/limits").read_text())
    assert box.text("custom-step.log") == "may open 300\n"
    end(box, pid, "custom-step.pid")


def test_custom_step_example_fails_like_a_stock_step(box: support.Sandbox, examples: Path) -> None:
    done = box.run(examples / "custom_step.py", ".", 2**60)
    assert done.returncode == 1
    assert "cannot set the limit on open descriptors to" in done.stderr
    assert "raise-fd-limit)" in done.stderr
    assert not (box.path / "custom-step.pid").exists()
    box.settled()


def test_heartbeat_logs_reloads_and_stops(box: support.Sandbox, examples: Path) -> None:
    config = box.path / "heartbeat.json"
    config.write_text(json.dumps({"seconds": 0.02, "message": "first"}))
    assert box.run(examples / "heartbeat.py").returncode == 0
    pid = box.pid("heartbeat.pid")
    assert is_daemon(pid)

    def logged(text: str) -> None:
        support.until(lambda: text in box.text("heartbeat.log"), what=text)

    logged(f"heartbeat[{pid}]: first\n")
    config.write_text(json.dumps({"seconds": 0.02, "message": "second"}))
    os.kill(pid, signal.SIGHUP)
    logged("second\n")
    config.write_text("{")
    os.kill(pid, signal.SIGHUP)
    logged("configuration kept")
    end(box, pid, "heartbeat.pid")
    assert box.text("heartbeat.log").endswith(f"heartbeat[{pid}]: stopped\n")


@pytest.mark.parametrize(
    "text",
    [
        *("[1, 2]", "{", "a directory", '{"seconds": "soon"}'),
        *('{"seconds": -1}', '{"seconds": 0}', '{"seconds": NaN}', '{"seconds": 1e99}'),
    ],
)
def test_heartbeat_keeps_its_configuration_if_the_new_one_can_not_be_used(
    box: support.Sandbox, examples: Path, text: str
) -> None:
    config = box.path / "heartbeat.json"
    assert box.run(examples / "heartbeat.py").returncode == 0
    pid = box.pid("heartbeat.pid")
    config.mkdir() if text == "a directory" else config.write_text(text)
    os.kill(pid, signal.SIGHUP)
    support.until(lambda: "configuration kept" in box.text("heartbeat.log"))
    end(box, pid, "heartbeat.pid")


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"seconds": "soon"}', '{"seconds": -1}'])
def test_heartbeat_with_a_configuration_that_can_not_be_used_says_so_in_one_line(
    box: support.Sandbox, examples: Path, text: str
) -> None:
    config = box.path / "heartbeat.json"
    config.write_text(text)
    done = box.run(examples / "heartbeat.py")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"heartbeat: cannot use {str(config)!r}: ")
    assert done.stderr.count("\n") == 1
    box.settled()


def test_heartbeat_in_a_directory_that_is_not_there_says_so_in_one_line(
    box: support.Sandbox, examples: Path
) -> None:
    done = box.run(examples / "heartbeat.py", "/nope")
    assert (done.returncode, done.stdout) == (1, "")
    said = "heartbeat: cannot write '/nope/heartbeat.log': No such file or directory; give another"
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("example", ["heartbeat", "sigchld", "custom_step"])
@pytest.mark.parametrize("args", [["--help"], [".", "x"], [".", "1", "2"]])
def test_wrong_arguments_get_the_usage_and_start_nothing(
    box: support.Sandbox, examples: Path, example: str, args: list[str]
) -> None:
    done = box.run(examples / f"{example}.py", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{example}.py [DIRECTORY]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not box.processes()


@pytest.mark.root
def test_heartbeat_writes_to_syslog_where_there_is_one(
    box: support.Sandbox, examples: Path
) -> None:
    # A /dev of the test's own, in a mount namespace, with a listener in the place of /dev/log.
    script = box.script("""
        import os, signal, socket, subprocess, sys
        sh = lambda command: subprocess.run(command, shell=True, check=True)
        os.mkdir("dev")
        sh("mount -t tmpfs none dev && touch dev/null && mount --bind /dev/null dev/null")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listener.bind("dev/log")
        listener.settimeout(20)
        sh("mount --rbind dev /dev")
        sh(f"{sys.executable} examples/heartbeat.py")
        print(listener.recv(4096).decode())
        os.kill(int(open("heartbeat.pid").read()), signal.SIGTERM)
        while "stopped" not in listener.recv(4096).decode():
            pass
    """)
    done = box.run(script, prefix=["unshare", "-m"])
    assert done.returncode == 0, done.stderr
    assert re.match(r"<14>heartbeat\[\d+\]: started", done.stdout)
    box.settled()


def test_double_fork_shows_its_three_processes(box: support.Sandbox, examples: Path) -> None:
    log = box.path / "double-fork.log"
    done = box.run(examples / "double_fork.py")
    pid = box.pid("double-fork.pid")
    last = support.until(lambda: log.exists() and log.read_text())
    shown = (done.stdout + last).splitlines()
    rows = [dict(re.findall(r"(\w+)=(\d+)", line)) for line in shown]
    start, first, leader, second, daemon = rows
    assert first["pid"] == leader["pid"] == leader["sid"] == leader["pgid"]
    assert first["sid"] == start["sid"] != leader["sid"]
    assert second == {**second, "pid": str(pid), "pgid": leader["pid"], "sid": leader["pid"]}
    assert daemon["pid"] == str(pid) != daemon["sid"]
    assert is_daemon(pid)
    os.kill(pid, signal.SIGKILL)
    support.gone(pid)


def test_classic_class_starts_restarts_and_stops(box: support.Sandbox, examples: Path) -> None:
    def clock(verb: str) -> subprocess.CompletedProcess[str]:
        return box.run(examples / "classic_class.py", verb)

    assert clock("start").returncode == 0
    first = box.pid("clock.pid")
    support.until(lambda: is_daemon(first))
    assert "exists already" in clock("start").stderr
    assert clock("restart").returncode == 0
    second = box.pid("clock.pid")
    assert second != first
    assert not support.alive(first)
    assert clock("stop").returncode == 0
    support.gone(second)
    assert not (box.path / "clock.pid").exists()
    assert "does not exist" in clock("stop").stderr

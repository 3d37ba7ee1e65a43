"""All steps that PEP 3143 asks for, by hand and inline: the limit for a library that does them."""

import stage

stage.begin()
import os  # noqa: E402
import resource  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402


def terminate(number, frame):
    raise SystemExit(0)


stage.before_open()

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
os.umask(0)
os.chdir("/")
os.setgid(os.getgid())
os.setuid(os.getuid())
sys.stdout.flush()
sys.stderr.flush()
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
    signal.signal(number, signal.SIG_IGN)
signal.signal(signal.SIGTERM, terminate)
low = 3
for fd in sorted(stage.kept):
    if fd > low:
        os.closerange(low, fd)
    low = fd + 1
os.closerange(low, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
null = os.open(os.devnull, os.O_RDWR)
for number in (0, 1, 2):
    os.dup2(null, number)
os.close(null)
stage.running()

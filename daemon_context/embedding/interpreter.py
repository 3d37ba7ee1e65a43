"""Which interpreter a fresh one is, and with which options: ours, if there is one."""

from __future__ import annotations

import os
import sys

from ..errors import DaemonError

BEGIN = "from daemon_context.embedding.fresh import obey"
# The options that `sys.flags` tells of. What else is in it comes from -X, which is passed as it is,
# or is for those who type.
FLAGS = {
    "isolated": "I",
    "ignore_environment": "E",
    "no_user_site": "s",
    "no_site": "S",
    "optimize": "O",
    "dont_write_bytecode": "B",
    "bytes_warning": "b",
    "verbose": "v",
}


def require_interpreter(target: str) -> None:
    """Refuse what would be started instead: this program again, which starts itself, and so on.

    :raises DaemonError: there is no interpreter that could be started
    """
    if not sys.executable:
        why = "sys.executable is empty"
    elif not _is_python() and _is_this_program(sys.executable):
        why = f"{sys.executable!r} is no Python but this program, which would start itself"
    elif any(BEGIN in argument for argument in sys.argv):
        why = f"{sys.executable!r} was started as one, and is this program again"
    else:
        return
    raise DaemonError(
        f"cannot run {target!r} in a fresh interpreter: {why}; give the function itself, from the "
        "main thread and outside of an event loop, or assign sys.executable the path of a Python "
        "that can import this program's modules"
    )


def _is_python() -> bool:
    """Whether the interpreter's own main() runs here, and not a program that has one built in."""
    frozen = getattr(sys, "frozen", False)  # PyInstaller, cx_Freeze, PyOxidizer
    compiled = hasattr(sys.modules.get("__main__"), "__compiled__")  # Nuitka
    return any(sys.orig_argv) and not frozen and not compiled


def _is_this_program(path: str) -> bool:
    try:
        return os.path.samefile(path, "/proc/self/exe")
    except OSError:  # it isn't there, which is said when it is started; or there is no /proc
        return False


def interpreter_options() -> list[str]:
    """Our own interpreter's, as far as they say what is imported and how code behaves.

    `subprocess._args_from_interpreter_flags` is private, and drops most of -X.
    """
    options = [f"-{option * getattr(sys.flags, flag)}" for flag, option in FLAGS.items()]
    options += [f"-W{action}" for action in sys.warnoptions]
    for name, value in sys._xoptions.items():
        options.append(f"-X{name}" if value is True else f"-X{name}={value}")
    # What lies in the working directory must not be imported by chance.
    return ["-P", *(option for option in options if option != "-")]

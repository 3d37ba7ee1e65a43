"""Which files and directories the daemon needs: read, and written."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import SimpleNamespace

    from ..options import Options

HOMES = ("/home", "/root", "/run/user")
TEMPORARY = ("/tmp", "/var/tmp")


class Paths:
    """The paths of a daemon's options and program.

    :ivar runtime: directories below /run, or the user's own, that systemd makes for the service
    :ivar written: directories that it must be able to write to
    :ivar directory: where relative paths begin; '' if none is used
    """

    def __init__(self, options: Options, call: SimpleNamespace) -> None:
        files = [target.path for target in options.streams if target.kind == "path"]
        if lock := getattr(options.pidfile, "path", None):
            files.insert(0, os.fspath(lock))
        self._used: list[str] = [
            *call.argv[:2],
            sys.prefix,
            sys.base_prefix,
            *_import_path(),
            *files,
        ]
        cwd: str = os.getcwd()
        relative = cwd != "/" and any(is_below(file, cwd) for file in files)
        self.directory = cwd if relative or call.argv[2:] else ""
        if self.directory:
            self._used.append(self.directory)
        self._sort({os.path.dirname(file): None for file in files}, call)

    def _sort(self, directories: dict[str, None], call: SimpleNamespace) -> None:
        run = os.environ.get("XDG_RUNTIME_DIR", "") if call.user else "/run"
        self.runtime: list[str] = []
        self.written: list[str] = []
        for directory in directories:
            if run and is_below(directory, run) and directory != run:
                self.runtime.append(os.path.relpath(directory, run))
            elif not is_below(directory, "/dev"):
                self.written.append(directory)

    def below(self, *places: str) -> str:
        """The first path that is needed and is below one of them; '' if none is."""
        found = (path for path in self._used if any(is_below(path, place) for place in places))
        return next(found, "")


def _import_path() -> list[str]:
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [os.path.abspath(path) for path in given if path]


def is_below(path: str, place: str) -> bool:
    """Whether the path is the place, or is below it."""
    return path == place or path.startswith(place.rstrip("/") + "/")

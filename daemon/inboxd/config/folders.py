"""Relative paths made absolute."""

from __future__ import annotations

from os.path import normpath
from pathlib import Path

from inboxd.errors import EXIT_CONFIG, OperatorFault


def absolute(base: Path | None, path: str | Path) -> Path:
    """Return a path, which if relative starts from ``base``; raises ``OperatorFault`` where it cannot.

    ``None`` is the working folder of a process whose folder was deleted: absolute paths alone mean something there.
    """
    if base is None and not Path(path).is_absolute():
        message = "the working folder does not exist any more, and the config's relative paths start from it"
        hint = "change to a folder that exists, or name a config file by its absolute path"
        raise OperatorFault("no_working_folder", message, hint, exit_code=EXIT_CONFIG)
    return Path(normpath((base or Path("/")) / path))

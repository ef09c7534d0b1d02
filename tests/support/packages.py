"""What is handed on (the wheel, the one file, the Debian package), made as a user makes it: by ``make``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from places import ROOT

OF_AN_OUTER_MAKE: Final = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")


@dataclass(frozen=True, slots=True)
class Packages:
    """A folder for what ``make`` makes of this checkout, each once."""

    folder: Path

    def made(self, target: str, name: str) -> Path:
        """Make a target, unless that was done; return the file of that name (a pattern) which it left."""
        ready = (f"--old-file={sys.prefix}/.run-ready", f"--old-file={sys.prefix}/.dev-ready")
        here = (f"VENV={sys.prefix}", f"DIST={self.folder}", f"BUILD={self.folder / 'build'}")
        environment = {name: value for name, value in os.environ.items() if name not in OF_AN_OUTER_MAKE}
        done = subprocess.run(
            ("make", "--silent", *ready, *here, target),
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (found,) = self.folder.glob(name)
        return found

    @property
    def wheel(self) -> Path:
        """The wheel."""
        return self.made("wheel", "*.whl")

    @property
    def zipapp(self) -> Path:
        """The one file."""
        return self.made("zipapp", "inboxd.pyz")

    @property
    def environment(self) -> Path:
        """An environment that was empty, with the wheel and the locked dependencies in it."""
        return self.made("packed", "build/env")

    @property
    def debian(self) -> Path:
        """The Debian package."""
        return self.made("deb", "*.deb")


@pytest.fixture(scope="session")
def packages(require_tool: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Return what is handed on; each is made when it is asked for, and once."""
    require_tool("make", "make")
    return Packages(tmp_path_factory.mktemp("packages"))

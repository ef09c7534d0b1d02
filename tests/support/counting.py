"""A daemon that writes down at its end how many feeds it has compiled and kept: ``counting.py FILE``."""

from __future__ import annotations

import sys
from pathlib import Path

from inboxd.records.fields import compile_feed
from inboxd.service import Service
from pausing import settings

if __name__ == "__main__":
    code = Service(settings(), settings).run()
    Path(sys.argv[1]).write_text(str(compile_feed.cache_info().currsize), encoding="utf-8")
    sys.exit(code)

"""Somebody who is told: a program that writes down what it gets, and a server that takes, refuses, or hangs."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def program(folder: Path) -> list[str]:
    """Return a command that adds notices to ``folder/received``; the files ``refuse`` and ``hang`` change its ways."""
    script = folder / "tell.py"
    script.write_text(
        "import os, sys, time\n"
        f"os.chdir({str(folder)!r})\n"
        "body = sys.stdin.buffer.read()\n"
        "if os.path.exists('refuse'): sys.exit(3)\n"
        "while os.path.exists('hang'): time.sleep(0.02)\n"
        "with open('received', 'ab') as received: received.write(body)\n"
    )
    return [sys.executable, str(script)]


def received(folder: Path) -> list[dict[str, Any]]:
    """Return the notices that the program of a folder was given, in order."""
    file = folder / "received"
    return [json.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []


@dataclass(slots=True)
class Server:
    """An HTTP server on a free port. ``answer`` is its status; while ``hanging`` is set it does not answer."""

    url: str = ""
    answer: int = 204
    got: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    hanging: threading.Event = field(default_factory=threading.Event)
    drips: bool = False

    @property
    def notices(self) -> list[dict[str, Any]]:
        """What it took, in order."""
        return [notice for _, notice in self.got]


@contextmanager
def server() -> Iterator[Server]:
    """Serve while the block lasts."""
    found = Server()
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            while found.hanging.is_set() and not ended.wait(0.02):
                pass
            if found.drips:
                while not ended.wait(0.05):
                    try:
                        self.wfile.write(b"H")
                    except OSError:
                        return
            if found.answer < 300:
                found.got.append((dict(self.headers), json.loads(body)))
            self.send_response(found.answer)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        serving.daemon_threads = True
        found.url = f"http://127.0.0.1:{serving.server_address[1]}/hook/s3cret"
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield found
        finally:
            ended.set()
            found.hanging.clear()
            serving.shutdown()
            thread.join()

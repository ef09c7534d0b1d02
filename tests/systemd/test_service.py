"""The service under a real systemd, booted in a machine of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from installed import DATA, INBOX, Service, record, write_records
from nspawn import Disk, Machine, until

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.xdist_group("systemd"),
    pytest.mark.timeout(600),
]

BIG: Final = 2_000_000
"""Records that take longer to load than the daemon may take to stop."""
MERGE: Final = '\n[feeds.events]\nlate = "merge"\n'


def drop(service: Service, name: str, text: str, *, user: str = "bob", mode: str = "0644") -> None:
    """Drop a file as a user does who writes it elsewhere and moves it in."""
    aside = service.machine.path(f"/home/{user}/{name}")
    aside.write_text(text, encoding="utf-8")
    service.machine.shell(f"chown {user}: /home/{user}/{name}; chmod {mode} /home/{user}/{name}")
    service.machine.run("mv", f"/home/{user}/{name}", f"{INBOX}/{name}", user=user)


def drop_many(service: Service, count: int, first: int = 0) -> None:
    """Drop ``count`` files of one record each, as fast as one sender can."""
    script = (
        "import os, sys\n"
        "for number, line in enumerate(sys.stdin, int(sys.argv[2])):\n"
        "    with open(f'{sys.argv[1]}/.{number}.part', 'w') as file: file.write(line)\n"
        "    os.rename(f'{sys.argv[1]}/.{number}.part', f'{sys.argv[1]}/{number:06}.ndjson')\n"
    )
    lines = "".join(record(number) for number in range(first, first + count))
    service.machine.run("python3", "-c", script, INBOX, str(first), user="bob", stdin=lines)


def drop_big(service: Service) -> None:
    """Move a large file in, and wait until the daemon is in the middle of it."""
    write_records(service.machine.path(f"{INBOX}/.big.part"), BIG)
    service.machine.run("mv", f"{INBOX}/.big.part", f"{INBOX}/big.ndjson")
    running = "SELECT count(*) FROM etl_runs WHERE status = 'running'"
    until(lambda: service.number(running) == 1, "the big file is being loaded")


def loaded_once(service: Service, count: int) -> None:
    """Wait until ``count`` records have arrived, and make sure that each did once."""
    until(lambda: service.number("SELECT count(*) FROM target") == count, f"{count} records", 90)
    until(lambda: service.number("SELECT count(*) FROM etl_runs WHERE status = 'running'") == 0, "all runs ended")
    loads = "SELECT count(*), count(DISTINCT record_key) FROM lineage WHERE step = 'load'"
    assert service.sql(loads) == [[count, count]]


def test_the_service_says_when_it_is_ready_and_what_it_does(service: Service) -> None:
    """After the boot it is active without a restart, and ``systemctl status`` has its counts."""
    assert service.show("NRestarts") == "0"
    assert "0 loaded" in service.show("StatusText")
    drop(service, "a.ndjson", record(1))
    service.wait_event("file_loaded", file="a.ndjson", rows_out=1)
    until(lambda: "1 loaded" in service.show("StatusText"), "the count in the status")


def test_files_of_other_users_are_loaded(service: Service) -> None:
    """0644, 0640 by the group, and files in folders made with any umask: the inbox's access list sees to it."""
    drop(service, "open.ndjson", record(1))
    service.wait_event("file_loaded", file="open.ndjson")
    drop(service, "group.ndjson", record(2), mode="0640")
    service.machine.shell(f"echo '{record(3).strip()}' > {INBOX}/direct.ndjson", user="carol")
    service.machine.shell(
        f"umask 077; mkdir -p {INBOX}/of/bob; echo '{record(4).strip()}' > {INBOX}/of/bob/deep.json", user="bob"
    )
    for name in ("direct.ndjson", "of/bob/deep.json"):
        service.wait_event("file_loaded", file=name, rows_out=1)
    assert service.machine.path(f"{DATA}/processed/of/bob/deep.json").exists()


def test_a_file_only_its_sender_may_read_is_refused_with_its_reason(service: Service) -> None:
    """0600 of another user fails as ``unreadable``, with a report beside it, and the next file is loaded."""
    drop(service, "secret.ndjson", record(1), mode="0600")
    failed = service.wait_event("file_failed", file="secret.ndjson")
    assert failed["error_code"] == "unreadable"
    reports = [path.name for path in service.machine.path(f"{DATA}/failed").iterdir()]
    assert len(reports) == 2
    assert "secret.ndjson" in reports
    drop(service, "next.ndjson", record(2))
    service.wait_event("file_loaded", file="next.ndjson")


def test_senders_see_neither_the_data_nor_touch_each_others_files(service: Service) -> None:
    """The drop group may drop and nothing else; others may not even look; nobody removes another's file."""
    service.systemctl("stop")
    drop(service, "of-bob.ndjson", record(1))
    run = service.machine.run
    assert run("rm", "-f", f"{INBOX}/of-bob.ndjson", user="carol", check=False).returncode == 1
    for user in ("bob", "eve"):
        assert run("cat", "/etc/inboxd/inboxd.toml", user=user, check=False).returncode == 1
        for path in (DATA, f"{DATA}/inboxd.db"):
            assert run("cat", path, user=user, check=False).returncode == 1, (user, path)
            assert run("ls", path, user=user, check=False).returncode == 2, (user, path)
    assert run("ls", INBOX, user="eve", check=False).returncode == 2
    assert run("touch", f"{INBOX}/x", user="eve", check=False).returncode == 1


@pytest.mark.parametrize("running", [True, False], ids=("running", "stopped"))
def test_a_member_of_the_group_reads_the_status(service: Service, running: bool) -> None:  # noqa: FBT001 - a case
    """``inboxd status`` finds the service's config by itself and works for the group, running and stopped."""
    drop(service, "a.ndjson", record(1))
    service.wait_event("file_loaded", file="a.ndjson")
    if not running:
        service.systemctl("stop")
    done = service.machine.run("inboxd", "status", "--json", user="alice")
    assert json.loads(done.stdout)
    assert service.machine.run("inboxd", "health", "--json", user="alice").stdout.count('"total_runs"') == 1
    refused = service.machine.run("inboxd", "status", user="eve", check=False)
    assert refused.returncode in {77, 78}
    assert "Traceback" not in refused.stderr
    mode = service.machine.path(f"{DATA}/inboxd.db").stat().st_mode & 0o777
    assert mode & 0o007 == 0, oct(mode)


def test_killed_at_any_moment_it_is_started_again_and_nothing_is_lost(service: Service) -> None:
    """``kill -9`` five times while files arrive: systemd starts it again, and each record arrives once."""
    service.configure("", MERGE)
    service.systemctl("restart")
    for kill in range(5):
        drop_many(service, 100, first=kill * 100)
        until(lambda kill=kill: service.number("SELECT count(*) FROM target") > kill * 100, "some of them")  # type: ignore[misc] # mypy cannot type a lambda's default
        service.machine.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "inboxd.service")
        until(lambda kill=kill: int(service.show("NRestarts")) > kill, "systemd started it again")  # type: ignore[misc] # the same
        service.wait_active()
    loaded_once(service, 500)
    assert service.events("file_failed") == []


def test_a_wedged_daemon_is_killed_and_started_again(service: Service) -> None:
    """A process that no longer gets on (SIGSTOP) is noticed by the watchdog and replaced; an idle one is left alone."""
    service.drop_in("watchdog", "[Service]\nWatchdogSec=3s\nTimeoutAbortSec=1s\n")
    service.systemctl("restart")
    assert service.show("NRestarts") == "0"
    first = service.show("MainPID")
    service.machine.run("sleep", "8")
    assert service.show("MainPID") == first
    service.machine.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "inboxd.service")
    until(lambda: service.show("NRestarts") == "1", "the watchdog killed it, systemd started it again")
    service.wait_active()
    drop(service, "after.ndjson", record(1))
    service.wait_event("file_loaded", file="after.ndjson")


def test_a_long_file_is_not_taken_for_a_wedged_daemon(service: Service) -> None:
    """A file that takes longer than the watchdog's time is loaded without a restart."""
    service.drop_in("watchdog", "[Service]\nWatchdogSec=2s\n")
    service.systemctl("restart")
    drop_big(service)
    service.wait_event("file_loaded", 90, file="big.ndjson", rows_out=BIG)
    assert service.show("NRestarts") == "0"


def test_a_good_config_is_taken_over_and_a_bad_one_is_not(service: Service) -> None:
    """``systemctl reload``: a new feed counts at once; with a fault in the file it fails, and the old config goes on.

    The status line says that the file on disk is refused, until one is taken.
    """
    feed = (
        '\n[feeds.orders]\nkey = ["id"]\ncursor = "at"\n[feeds.orders.fields]\n'
        'id = { type = "integer" }\nat = { type = "timestamp" }\n'
        '[feeds.events]\nmatch = ["*"]\n'
    )
    service.configure("", feed)
    before = service.show("MainPID")
    service.systemctl("reload")
    service.wait_event("config_reloaded")
    service.machine.run("mkdir", f"{INBOX}/orders", user="bob")
    service.machine.shell(f"""echo '{{"id":1,"at":"2026-01-01"}}' > {INBOX}/orders/1.json""", user="bob")
    service.wait_event("file_loaded", feed="orders", rows_out=1)
    service.configure("[inbox]", '[inbox]\nsettle = "soon"')
    assert service.machine.run("systemctl", "reload", service.unit, check=False).returncode != 0
    rejected = service.wait_event("config_rejected")
    assert "settle" in str(rejected)
    until(lambda: "the config on disk is refused" in service.show("StatusText"), "the status line says so")
    drop(service, "still.ndjson", record(1))
    service.wait_event("file_loaded", file="still.ndjson")
    assert service.show("MainPID") == before
    assert service.show("ActiveState") == "active"
    service.configure('settle = "soon"', "")
    service.systemctl("reload")
    until(lambda: "refused" not in service.show("StatusText"), "the status line is clear again")


def test_a_bad_config_at_start_stays_down_with_its_reason(service: Service) -> None:
    """Exit 78 is not started again and again; once mended, a start is enough."""
    service.configure("[inbox]", '[inbox]\nsettle = "soon"')
    assert service.machine.run("systemctl", "restart", "inboxd", check=False).returncode == 1
    until(lambda: service.show("ActiveState") == "failed", "the unit failed")
    assert service.show("ExecMainStatus") == "78"
    assert service.show("NRestarts") == "0"
    assert any("settle" in line for line in service.machine.journal(service.unit))
    service.configure('settle = "soon"', "")
    service.systemctl("start")
    service.wait_active()


def test_it_stops_in_order_in_the_middle_of_a_big_file(service: Service) -> None:
    """TERM, and once more, end it within 10 s with exit 0; at the next start the file is loaded, once."""
    service.drop_in("stop", "[Service]\nTimeoutStopSec=10s\n")
    service.systemctl("restart")
    drop_big(service)
    service.machine.run("systemctl", "kill", "--kill-whom=main", "--signal=TERM", "inboxd.service")
    service.systemctl("stop")
    assert (service.show("Result"), service.show("ExecMainStatus")) == ("success", "0")
    service.systemctl("start")
    service.wait_event("file_loaded", 90, file="big.ndjson", rows_out=BIG)
    assert service.sql("SELECT count(*), min(status) FROM etl_runs") == [[1, "success"]]


@pytest.mark.parametrize("orderly", [True, False], ids=("reboot", "power-cut"))
def test_files_that_wait_through_a_boot_are_loaded(disk: Disk, orderly: bool) -> None:  # noqa: FBT001 - a case
    """A reboot or a power cut in the middle of many files: after the boot all of them are there."""
    machine = Machine(disk)
    service = Service(machine)
    try:
        machine.boot()
        service.wait_active()
        service.configure("", MERGE)
        service.systemctl("restart")
        drop_many(service, 300)
        until(lambda: service.number("SELECT count(*) FROM target") > 0, "some of them")
        if orderly:
            machine.halt()
        else:
            machine.cut_power()
        disk.write(f"{INBOX}/while-away.ndjson", record(300))
        machine.boot()
        service.wait_active()
        loaded_once(service, 301)
    finally:
        machine.halt()


def test_lines_survive_a_rotation_under_load(service: Service, require_tool: Callable[[str, str], str]) -> None:
    """Rotation renames the log while files arrive: each file has its line, once, in one of the logs."""
    require_tool("logrotate", "logrotate")
    require_tool("zcat", "gzip")
    service.configure('file = ""', 'file = "/var/log/inboxd/inboxd.log"')
    service.configure("", MERGE)
    service.systemctl("restart")
    for turn in range(4):
        drop_many(service, 100, first=turn * 100)
        service.machine.run("logrotate", "--force", "/etc/logrotate.d/inboxd")
    loaded_once(service, 400)

    def files_named() -> list[str]:
        text = service.machine.shell("zcat -f /var/log/inboxd/inboxd.log*")
        lines = [json.loads(line) for line in text.splitlines()]
        return sorted(line["file"] for line in lines if line["event"] == "file_loaded")

    until(lambda: len(files_named()) >= 400, "all lines are written")
    assert files_named() == [f"{number:06}.ndjson" for number in range(400)]
    assert len(list(service.machine.path("/var/log/inboxd").iterdir())) > 1


def test_the_journal_is_lines_that_jq_reads(service: Service) -> None:
    """``journalctl -u inboxd -o cat | jq`` works: systemd's own lines about a start are left out of it."""
    drop(service, "a.ndjson", record(1))
    service.wait_event("file_loaded", file="a.ndjson")
    service.systemctl("restart")
    # Some kernels have no cgroup.kill to write to, and systemd says so: not about the service.
    said = [line for line in service.machine.journal("inboxd") if "Failed to kill control group" not in line]
    lines = [json.loads(line) for line in said]
    assert {"daemon_started", "file_loaded", "daemon_stopped"} <= {line["event"] for line in lines}


def test_each_instance_has_a_config_and_folders_of_its_own(service: Service) -> None:
    """``systemctl start inboxd@orders`` with ``/etc/inboxd/orders.toml`` is a second inboxd beside the first."""
    config = service.machine.path("/etc/inboxd/inboxd.toml").read_text(encoding="utf-8")
    service.machine.disk.write("/etc/inboxd/orders.toml", config.replace("/var/lib/inboxd/", "/var/lib/inboxd-orders/"))
    orders = Service(service.machine, "inboxd@orders.service")
    orders.systemctl("start")
    service.machine.shell(f"echo '{record(1).strip()}' > /var/lib/inboxd-orders/inbox/1.json", user="bob")
    orders.wait_event("file_loaded", file="1.json", rows_out=1)
    assert orders.sql("SELECT count(*) FROM target", "/var/lib/inboxd-orders/data/inboxd.db") == [[1]]
    assert service.number("SELECT count(*) FROM target") == 0
    assert Path(service.machine.path("/var/lib/inboxd-orders/data/processed/1.json")).exists()

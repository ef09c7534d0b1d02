"""Three hosts, one database, a shared inbox and a private one: killed, cut off, restarted; nothing lost or twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from audits import audited
from citus import cluster_of, own_nodes
from clusters import PASSWORD, SERVER_USER, Cluster, PostgresHome, binaries
from daemons import Home, eventually
from hosts import Host, Network
from stores import CITUS, ON_CITUS

FILES = int(os.environ.get("INBOXD_TEST_FILES", "240"))
"""Files in all; 10,000 by hand takes some minutes."""
PATIENCE_S = 60.0 + FILES / 20
"""How long a test waits for what must happen; it is never waited out when all is well."""
pytestmark = [
    pytest.mark.postgres,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.xdist_group("hosts"),
    pytest.mark.timeout(300 + FILES // 10),
]
RECORDS = 12
DAEMONS = ("one", "two", "three")
COMMIT_GATE = 4242
"""The advisory lock that host two's COMMIT waits for while the test holds it."""
GATE = f"""
CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN PERFORM pg_advisory_xact_lock_shared({COMMIT_GATE}); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER gate AFTER UPDATE ON etl_runs DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (NEW.status = 'success' AND NEW.host = 'two') EXECUTE FUNCTION gate()
"""
CONFIG = """
[inbox]
path = "{inbox}"
[archive]
processed = "{archive}/processed"
failed = "{archive}/failed"
[feeds.ordered]
match = ["ordered/**"]
key = ["key"]
cursor = "ts"
[feeds.ordered.fields]
key = {{ type = "text" }}
value = {{ type = "integer" }}
ts = {{ type = "integer" }}
[feeds.merged]
match = ["merged/**"]
key = ["key"]
cursor = "ts"
late = "merge"
[feeds.merged.fields]
key = {{ type = "text" }}
value = {{ type = "integer" }}
ts = {{ type = "integer" }}
"""


def make_files() -> dict[str, str]:
    """Return the files by name, in the order in which they are dropped: every twelfth is a copy of another."""
    chance = random.Random(20260115)
    files: dict[str, str] = {}
    for number in range(FILES):
        feed = ("merged", "ordered")[number % 2]
        keys = [chance.randrange(20 * RECORDS) for _ in range(RECORDS)]
        spread = 40 * RECORDS if feed == "merged" else RECORDS  # ordered files overlap their neighbours only
        base = number * RECORDS + chance.randrange(spread)
        records = [
            {"key": f"k{key}", "value": number, "ts": (base + place) * 1000 + number % 1000}
            for place, key in enumerate(keys)
        ]
        content = json.dumps(records)
        if number % 12 == 11:
            content = files[f"{feed}/{number - 6:05d}.json"]
        files[f"{feed}/{number:05d}.json"] = content
    return files


@dataclass
class Site:
    """A database's servers, on a host of their own, and its daemons, each on another."""

    path: Path
    servers: Sequence[Cluster]
    url: str
    inside: str
    homes: dict[str, PostgresHome] = field(default_factory=dict)
    marks: dict[str, list[int]] = field(default_factory=dict)

    @property
    def cluster(self) -> Cluster:
        """The server that daemons connect to."""
        return self.servers[0]

    def look(self) -> bool:
        """Note the watermarks, as often as the server lets us."""
        with suppress(psycopg.Error), self.cluster.connect(self.url) as connection:
            for name, value in connection.execute("SELECT name, value FROM watermarks").fetchall():
                self.marks.setdefault(name, []).append(int(value))
        return True

    def eventually(self, look: Callable[[], object], what: str, *, deadline_s: float = PATIENCE_S) -> None:
        """Wait for what must happen, watching the watermarks."""
        eventually(lambda: self.look() and look(), what, deadline_s=deadline_s)

    def waits(self, address: str, query: str) -> bool:
        """Tell whether a host's session waits for a lock in a statement that begins so."""
        with self.cluster.connect(self.url) as connection:
            found = connection.execute(
                "SELECT 1 FROM pg_stat_activity WHERE client_addr = %s::inet AND wait_event_type = 'Lock'"
                " AND query LIKE %s",
                (address, f"{query}%"),
            )
            return found.fetchone() is not None

    def drop(self, inbox: Path, files: Mapping[str, str]) -> None:
        """Rename whole files into an inbox."""
        outside = self.path / "outside.part"
        for name, content in files.items():
            outside.write_text(content)
            (inbox / name).parent.mkdir(parents=True, exist_ok=True)
            outside.rename(inbox / name)

    def verdicts(self) -> Counter[str]:
        """Return how often a verdict was said of each file, over all daemons."""
        return Counter(str(line["file"]) for home in self.homes.values() for line in home.verdicts())


@pytest.fixture
def network(require_tool: Callable[[str, str], str], require_root: Callable[[], None]) -> Iterator[Network]:
    """Return four hosts: one for the database, three for daemons."""
    require_root()
    require_tool("ip", "iproute2")
    require_tool("setpriv", "util-linux")
    with Network(("database", *DAEMONS)) as network:
        yield network


@contextmanager
def one_server(host: Host) -> Iterator[tuple[Sequence[Cluster], str]]:
    """Start a server on a host; yields it and the URL, from here, of an empty database."""
    with ExitStack() as stack:
        folder = Path("/tmp") / f"ixb-{os.getpid()}-{os.urandom(3).hex()}"  # noqa: S108 - short, for the socket's path
        folder.mkdir()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        cluster = Cluster(folder, binaries(), host.address, 5432, host.inside)
        cluster.start()
        stack.callback(lambda: cluster.stop("immediate"))
        local = f"postgresql://postgres@/postgres?host={folder}&port=5432"
        with cluster.connect(local) as connection:
            connection.execute("CREATE DATABASE inboxd")
        yield [cluster], local.replace("/postgres?", "/inboxd?")


@contextmanager
def citus_nodes(host: Host, programs: Path) -> Iterator[tuple[Sequence[Cluster], str]]:
    """Start a coordinator and two workers there; what a lost one has left unfinished is recovered every second."""
    with own_nodes(programs, host.address, host.inside) as nodes:
        for node in nodes:
            node.set("citus.recover_2pc_interval", "1s")
        yield nodes, cluster_of(nodes).make("inboxd")


@pytest.fixture(params=["postgres", ON_CITUS])
def site(request: pytest.FixtureRequest, postgres_server: str, tmp_path: Path) -> Iterator[Site]:
    """Return servers on their host, and a daemon on each of three others (one with a second, on a private inbox)."""
    assert postgres_server, SERVER_USER  # it has made the user that servers run as
    programs = request.getfixturevalue("citus").programs() if request.param == CITUS else None
    network: Network = request.getfixturevalue("network")
    host = network.hosts["database"]
    with ExitStack() as stack:
        servers, local = stack.enter_context(citus_nodes(host, programs) if programs else one_server(host))
        secret = tmp_path / "secret"
        secret.write_text(PASSWORD)
        inside = f"postgresql://postgres@{host.address}:{servers[0].port}/inboxd"
        site = Site(tmp_path, servers, local, inside)
        (tmp_path / "shared" / "inbox").mkdir(parents=True)
        for name in (*DAEMONS, "private"):
            on = network.hosts["three" if name == "private" else name]
            inbox = tmp_path / ("private" if name == "private" else "shared") / "inbox"
            home = PostgresHome(
                tmp_path / name,
                CONFIG.format(inbox=inbox, archive=inbox.parent / f"archive-{name}"),
                env={"INBOXD_DATABASE__PASSWORD_FILE": str(secret), "INBOXD_DATABASE__URL": inside},
                command=on.command(sys.executable, "-m", "inboxd"),
                url=site.url,
                password=PASSWORD,
            )
            site.homes[name] = stack.enter_context(home)
        yield site


def test_hosts_that_die_are_cut_off_and_lose_their_server_load_everything_once(site: Site, network: Network) -> None:
    """Whatever happens to daemons, links and server, the end is that of one daemon, and each file has one verdict."""
    files = make_files()
    homes, shared, private = site.homes, site.path / "shared" / "inbox", site.path / "private" / "inbox"
    names = list(files)
    mine = {name: files[name] for name in names if name.startswith("merged") and int(name[-10:-5]) % 8 == 0}
    parts = [names[place::5] for place in range(5)]
    portions = [{name: files[name] for name in part if name not in mine} for part in parts]
    homes["one"].start()
    with site.cluster.connect(site.url) as connection:
        connection.execute(GATE)
    for name in ("two", "three", "private"):
        homes[name].start()
    site.drop(private, mine)
    site.drop(shared, portions[0])
    site.eventually(lambda: site.verdicts().total() > FILES // 10, "the first files are loaded")

    # Kill one in the middle of a file.
    with site.cluster.connect(site.url) as blocking, blocking.transaction():
        blocking.execute("LOCK TABLE merged, ordered IN EXCLUSIVE MODE")
        site.drop(shared, portions[1])
        site.eventually(lambda: site.waits(network.hosts["one"].address, ""), "host one is in the middle of a file")
        homes["one"].kill()
    site.eventually(lambda: site.verdicts().total() > FILES // 5, "the others go on")

    # Cut the link of another during COMMIT, and let the server commit.
    with site.cluster.connect(site.url) as gate:
        gate.execute("SELECT pg_advisory_lock(%s)", (COMMIT_GATE,))
        site.drop(shared, portions[2])
        site.eventually(lambda: site.waits(network.hosts["two"].address, "COMMIT"), "host two is committing")
        network.hosts["two"].cut()
    homes["one"].start()

    # Restart the server, orderly and not, with files on their way.
    site.drop(shared, portions[3])
    site.cluster.stop("fast")
    site.cluster.start()
    site.eventually(lambda: site.verdicts().total() > FILES // 2, "the server's restart is survived")
    for server in site.servers:
        server.stop("immediate")
        server.start()
    site.drop(shared, portions[4])
    eventually(lambda: homes["two"].lines("file_deferred"), "host two has noticed", deadline_s=60.0)
    network.hosts["two"].mend()

    site.eventually(lambda: not (left_in(shared) or left_in(private)), "all is done", deadline_s=2 * PATIENCE_S)
    site.eventually(lambda: set(site.verdicts()) == set(files), "every file has its verdict")
    for home in homes.values():
        assert home.stop(signal.SIGTERM) == 0
    check_the_end(site, files)


def left_in(inbox: Path) -> list[str]:
    """Return the files in an inbox, claimed or not; folders may come and go meanwhile."""
    return [name for _, _, names in os.walk(inbox) for name in names]


def check_the_end(site: Site, files: Mapping[str, str]) -> None:
    """Compare verdicts, archive and ledger with the files; an audit derives the tables in the order of commits."""
    query = site.homes["one"].query
    assert {name: count for name, count in site.verdicts().items() if count != 1} == {}
    archived = [path.name for path in site.path.rglob("archive-*/processed/*/*.json")]
    assert sorted(archived) == sorted(Path(name).name for name in files)
    assert query("SELECT COUNT(*) FROM etl_runs WHERE status = 'running'") == [(0,)]
    assert query("SELECT DISTINCT error_code FROM etl_runs WHERE status = 'failure'") in ([], [("interrupted",)])
    loaded = query(
        "SELECT file_name, rows_out, rows_skipped, rows_stale FROM etl_runs"
        " WHERE status = 'success' AND duplicate_of IS NULL ORDER BY finished_at"
    )
    assert Counter(files[name] for name, *_ in loaded) == Counter(set(files.values()))
    assert {host for (host,) in query("SELECT DISTINCT host FROM etl_runs")} == set(DAEMONS)
    listed = site.homes["three"].json("status", "--json")["hosts"]
    assert {one["host"] for one in listed} == set(DAEMONS)
    assert sum(one["successes"] for one in listed) == len(files)
    for marks in site.marks.values():
        assert marks == sorted(marks)

    judge = Home(site.path / "judge", CONFIG.format(inbox="inbox", archive="."))
    for archive in site.path.rglob("archive-*/processed"):
        shutil.copytree(archive, judge.path / "processed", dirs_exist_ok=True)
    secret = str(site.path / "secret")
    found = audited(judge.path, {"INBOXD_DATABASE__URL": site.url, "INBOXD_DATABASE__PASSWORD_FILE": secret})
    assert found == []

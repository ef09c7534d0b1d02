"""The last step of a file's way: into ``processed/`` or ``failed/``, whole, durable, over nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inboxd.errors import TransientFault
from inboxd.inbox.carry import carry
from inboxd.inbox.claim import Claim, Entrance, forget, open_claimed
from inboxd.inbox.faults import GONE, transient_fault
from inboxd.inbox.names import CLAIMED, Names, looks_like_report, marked
from inboxd.inbox.tree import Folder, identity_of, is_no_folder, make_root, sync_folder
from inboxd.model import printable

ARCHIVE_IN_INBOX: Final = "archive_in_inbox"
_SET_ID: Final = stat.S_ISUID | stat.S_ISGID


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the archive a file is: one of its two folders, and the file's path below that."""

    folder: str
    name: str

    @property
    def path(self) -> str:
        """The whole path, to be shown."""
        return f"{self.folder}/{self.name}"

    @property
    def below(self) -> str:
        """The path, below the archive's, of the folder that the file is in."""
        return self.name.rpartition("/")[0]

    @property
    def whole_folder(self) -> str:
        """The whole path of the folder that the file is in."""
        return self.path.rpartition("/")[0]

    @property
    def file(self) -> str:
        """The file's own name."""
        return self.name.rpartition("/")[2]

    @contextlib.contextmanager
    def opened(self) -> Iterator[Folder]:
        """Open the folder that the file is in; raises ``OSError``."""
        with Folder.root(self.folder) as archive, archive.reach(self.below) as folder:
            yield folder


class Archive:
    """Where files end. Paths in it are those they had in the inbox.

    ``tick`` is called whenever bytes were copied, which takes long; it may raise, and the file is then claimed as
    before. With ``copy`` a copy is archived, so that nobody who has the file open, or another link to it, can change
    that.
    """

    def __init__(
        self,
        processed: str | os.PathLike[str],
        failed: str | os.PathLike[str],
        tick: Callable[[], None] = lambda: None,
        *,
        copy: bool = False,
    ) -> None:
        self.processed = Path(processed)
        self.failed = Path(failed)
        self._tick = tick
        self._copy = copy
        self._tops: dict[Path, tuple[Folder, tuple[int, int]]] = {}

    def move(self, claim: Claim, folder: Path, run_id: int) -> Place:
        """Move a claimed file to its place below ``folder``, and return where it is now. Never overwrites.

        That is durable after ``make_durable``. The claim's folder stays, empty, as the mark that the file's verdict is
        still to be said: see ``forget``.
        May be called again after a crash or an error. Raises ``TransientFault``: the file is still claimed, and another
        call goes on from there; ``gone`` if it is not.
        """
        reserved = folder == self.failed and looks_like_report(claim.file)
        names = Names(claim.file, run_id, reserved=reserved)
        try:
            set_id = claim.folder.look(claim.file).st_mode & _SET_ID
            copy = bool(self._copy or set_id) and _must_copy(claim, always=self._copy)
            with _made(self._top(folder), claim, run_id) as (place, below):
                part = _part(claim.id)
                name = carry(claim.folder, claim.file, place, names, part=part, copy=copy, tick=self._tick)
        except OSError as error:
            self.rest()
            if isinstance(error, FileNotFoundError) and not claim.there():
                raise _gone(claim, folder) from error
            raise _not_moved(error, claim, folder) from error
        return Place(os.fspath(folder), f"{below}/{name}" if below else name)

    def _top(self, folder: Path) -> tuple[Folder, tuple[int, int]]:
        """Return one of the two folders, open, and what it is; it is made where there is none."""
        found = self._tops.get(folder)
        if found is None:
            try:
                top = Folder.root(folder)
            except FileNotFoundError:
                make_root(folder)
                top = Folder.root(folder)
            found = self._tops[folder] = top, top.identity()
        return found

    def rest(self) -> None:
        """Close what it keeps open between two files: nobody could unmount it."""
        self._tops.clear()

    def settle(self, claim_id: str, name: str, run_id: int) -> None:
        """Make durable that a file is in its place, and remove what a crash left of the copying. Never raises."""
        below = name.rpartition("/")[0]
        for top in (self.processed, self.failed):
            with contextlib.suppress(OSError), Folder.root(top) as root, entered(root, below, run_id) as (place, _):
                place.sync()
                place.unlink(_part(claim_id))

    def find(self, name: str, run_id: int) -> Place | None:
        """Return where in ``failed/`` the file of a run is, under its own name or the one with the run's number."""
        return place_of(self.failed, name, run_id)

    def take_back(self, root: str, place: Place, name: str, claim_id: str) -> Claim:
        """Claim a file of ``processed/`` or ``failed/`` again, as ``name`` (relative to the inbox), for ``retry``.

        Raises ``TransientFault``; the file is then where it was.
        """
        claim = Claim(claim_id, root, name)
        part = _part(claim_id)
        try:
            with place.opened() as folder:
                folder.look(place.file)
                claim.make(Entrance(root))
                _make_durable(claim)
                carry(folder, place.file, claim.folder, [claim.file], part=part, copy=False, tick=self._tick)
                claim.folder.sync()
                folder.sync()
            claim.found(claim.folder.look(claim.file))
        except OSError as error:
            forget(claim)
            raise transient_fault(error, f"claiming {printable(place.path)} again", root) from error
        return claim

    def give_back(self, claim: Claim, place: Place) -> None:
        """Put a file that was taken back where it was, over nothing; on ``TransientFault`` it stays claimed."""
        try:
            with place.opened() as folder:
                carry(claim.folder, claim.file, folder, [place.file], part=_part(claim.id), tick=self._tick)
                folder.sync()
        except OSError as error:
            raise _not_moved(error, claim, place.folder) from error


def make_durable(places: Iterable[Place]) -> dict[str, TransientFault]:
    """Make durable that files were moved to these places, each folder once; return why for each where that failed.

    What a move took out of another folder need not be durable: a file that is in both after a power cut is recognised.
    May be called from any thread, and again.
    """
    faults: dict[str, TransientFault] = {}
    for whole_folder, place in {place.whole_folder: place for place in places}.items():
        try:
            sync_folder(place.folder, place.below)
        except OSError as error:
            faults[whole_folder] = transient_fault(error, f"making {printable(place.path)} durable", whole_folder)
    return faults


def _make_durable(claim: Claim) -> None:
    """Make durable that a claim's folders are there, up to the inbox: a file that is taken back lies nowhere else."""
    below = f"{CLAIMED}/{claim.own}/{claim.name}".rpartition("/")[0]
    while below:
        below = below.rpartition("/")[0]
        sync_folder(claim.root, below)


def _part(claim_id: str) -> str:
    """Return the hidden name of a copy that is being made for a claim."""
    return f".{claim_id}.part"


def probe(root: str, folder: Path) -> bool:
    """Rename a file of our own from ``.claimed`` to a folder of the archive; tell whether there is a ``.claimed``.

    Raises ``OSError`` where that is not possible, ``TransientFault`` if ``.claimed`` is not ours.
    """
    name = f".doctor-{os.getpid()}"
    with Folder.root(root) as inbox, Folder.root(folder) as target:
        if not inbox.has(CLAIMED):
            return False
        with open_claimed(inbox) as claimed:
            os.close(claimed.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            try:
                claimed.move(name, target, name)
            except OSError:
                claimed.unlink(name)
                raise
            target.unlink(name)
    return True


def _gone(claim: Claim, folder: Path) -> TransientFault:
    message = (
        f"{printable(claim.name)} is no longer claimed, and should have been moved to {printable(os.fspath(folder))}"
    )
    return TransientFault(GONE, message, "somebody moved or removed it; what it held is in the database")


def _not_moved(error: OSError, claim: Claim, folder: str | os.PathLike[str]) -> TransientFault:
    return transient_fault(error, f"moving {printable(claim.name)} to {printable(os.fspath(folder))}", folder)


def _must_copy(claim: Claim, *, always: bool) -> bool:
    """Take a file's set-id bits off; tell whether a copy is to be archived: asked for, or they are not ours to change.

    What may not be read cannot be copied, and is renamed as it is.
    """
    try:
        fd = claim.folder.open(claim.file, os.O_RDONLY | os.O_NONBLOCK)
    except PermissionError:
        return False
    try:
        if not always:
            os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) & 0o777)
    except PermissionError:
        return True
    finally:
        os.close(fd)
    return always


def place_of(top: Path, name: str, run_id: int) -> Place | None:
    """Return where the file that a run took as ``name`` is, below a folder of the archive; ``None`` if it is not."""
    below, _, base = name.rpartition("/")
    with contextlib.suppress(OSError), Folder.root(top) as archive, entered(archive, below, run_id) as (folder, way):
        for candidate in (marked(base, f"run-{run_id}"), base):
            if folder.has(candidate):
                return Place(os.fspath(top), f"{way}/{candidate}" if way else candidate)
    return None


@contextlib.contextmanager
def entered(top: Folder, below: str, run_id: int) -> Iterator[tuple[Folder, str]]:
    """Open the folder of an archive that a run's file went to, and give its path; raises ``OSError``.

    Where a file, or a link, was in the way, the folder has the run's number in its name: see ``_made``.
    """
    way: list[str] = []

    def step(here: Folder, name: str) -> Folder:
        own = marked(name, f"run-{run_id}")
        try:
            there, called = here.into(own), own
        except OSError as error:
            if not is_no_folder(error):
                raise
            there, called = here.into(name), name
        way.append(called)
        return there

    with top.reach(below, step) as folder:
        yield folder, "/".join(way)


@contextlib.contextmanager
def _made(top: tuple[Folder, tuple[int, int]], claim: Claim, run_id: int) -> Iterator[tuple[Folder, str]]:
    """Open the folder that a file goes to, made where it is not; give its path below the top, which is open, too.

    Where a file, or a link, is in the way, the folder gets the run's number in its name. One that is the inbox, by
    whatever way, is not entered: what is archived there would be loaded again, for ever.
    """
    archive, found = top
    inbox = claim.inbox or identity_of(claim.root)
    way: list[str] = []

    def step(here: Folder, name: str) -> Folder:
        for new in Names(name, run_id):
            try:
                there = here.made(new)
            except OSError as error:
                if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                    raise
            else:
                way.append(new)
                return checked(there, there.identity())
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), name)

    def checked(folder: Folder, found: tuple[int, int]) -> Folder:
        if found != inbox:
            return folder
        message = f"{printable(folder.path)} is the inbox: what is archived there would be loaded again"
        raise TransientFault(ARCHIVE_IN_INBOX, message, "let inbox.path and the folders of [archive] lie apart")

    with checked(archive, found).reach(claim.name.rpartition("/")[0], step) as folder:
        yield folder, "/".join(way)

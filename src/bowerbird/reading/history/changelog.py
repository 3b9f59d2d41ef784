"""What the commits of a range really changed, one by one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bowerbird.errors import BowerbirdError
from bowerbird.reading.history.repository import Repository
from bowerbird.reading.history.track import TrackResult, compare
from bowerbird.reading.running.launch import Child, warm
from bowerbird.reading.source import open_source


@dataclass(frozen=True)
class Entry:
    """One commit; ``problem`` says why it could not be compared."""

    commit: str
    message: str
    result: TrackResult | None
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        told = self.result.to_json() if self.result is not None else {"problem": self.problem}
        return {"commit": self.commit, "message": self.message, **told}


def track_range(folder: Path | str, file: str | None, commits: str, *, child: Child | None = None) -> TrackResult:
    """The first commit of ``A..B`` against the last."""
    repository = Repository(folder)
    first, last = ends(repository, commits)
    with repository.checkout(first, file) as one, repository.checkout(last, file) as two:
        a, b = open_source(one), open_source(two)
        name = file or repository.root.name
        return compare(a, b, f"{name}@{first[:9]}", f"{name}@{last[:9]}", child=child)


def ends(repository: Repository, commits: str) -> tuple[str, str]:
    """The commits that ``A..B`` names; without B, what is checked in now."""
    first, dots, last = commits.partition("..")
    if not dots or not first:
        raise BowerbirdError(f"'{commits}' is no range of commits; write A..B.")
    return repository.commit(first), repository.commit(last or "HEAD")


def changelog(folder: Path | str, file: str | None, commits: str) -> list[Entry]:
    """Every commit of the range that touches the file, oldest first."""
    repository = Repository(folder)
    first, last = ends(repository, commits)
    found = []
    with warm() as child:
        for commit, message in repository.commits(first, last, file):
            try:
                result = track_range(folder, file, f"{commit}^..{commit}", child=child)
            except BowerbirdError as error:
                found.append(Entry(commit, message, None, str(error)))
                continue
            found.append(Entry(commit, message, result))
    return found

"""The user's git repository, read only: nothing in its configuration can make git run a program."""

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bowerbird.errors import BowerbirdError

MOST_FILES, MOST_BYTES = 300, 300_000
_SAFE = ("-c", "core.fsmonitor=", "-c", "core.hooksPath=/dev/null", "-c", "protocol.allow=never", "--no-pager")


class Repository:
    """``root`` is the folder that holds ``.git``."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise BowerbirdError(f"There is no folder {folder}.")
        try:
            self.root = Path(self._git("rev-parse", "--show-toplevel").strip())
        except BowerbirdError:
            raise BowerbirdError(f"{folder} is not a git repository.") from None

    def _git(self, *words: str) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
        command = ["git", *_SAFE, "-C", str(self.folder), *words]
        try:
            done = subprocess.run(command, capture_output=True, env=environment, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BowerbirdError(f"git could not be asked: {error}.") from None
        if done.returncode:
            raise BowerbirdError(f"git says: {done.stderr.decode(errors='replace').strip()[:200]}")
        return done.stdout.decode("utf-8", errors="replace")

    def commit(self, name: str) -> str:
        """The full id of a commit by any of its names."""
        try:
            return self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").strip()
        except BowerbirdError:
            raise BowerbirdError(f"There is no commit {name} in {self.root}.") from None

    def commits(self, first: str, last: str, file: str | None) -> list[tuple[str, str]]:
        """Commits after ``first`` up to ``last`` that touch a file (any Python file, without one), oldest first."""
        path = file or "*.py"
        out = self._git("log", "--reverse", "--no-ext-diff", "--no-textconv", "--format=%H%x00%s", f"{first}..{last}",
                        "--", path)  # fmt: skip
        return [(row[0], row[1]) for line in out.splitlines() if len(row := line.split("\0", 1)) == 2]

    @contextlib.contextmanager
    def checkout(self, commit: str, file: str | None) -> Iterator[Path]:
        """The small files of a commit in a folder of their own; gives the path of the file, or the folder."""
        with tempfile.TemporaryDirectory(prefix="bowerbird-version-") as name:
            folder = Path(name).resolve()
            for mode, kind, blob, size, path in self._tree(commit):
                target = folder / path
                inside = os.path.normpath(target).startswith(str(folder) + os.sep)
                if kind == "blob" and mode.startswith("100") and size <= MOST_BYTES and inside:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_text(self._git("cat-file", "blob", blob), encoding="utf-8")
            if file is not None and not (folder / file).is_file():
                raise BowerbirdError(f"{file} is not in commit {commit[:9]}.")
            yield folder / file if file is not None else folder

    def _tree(self, commit: str) -> list[tuple[str, str, str, int, str]]:
        rows = []
        for line in self._git("ls-tree", "-r", "-l", "-z", "--full-tree", commit).split("\0"):
            found = re.match(r"(\d+) (\w+) (\w+) +(\d+|-)\t(.*)", line, re.S)
            if found and re.search(r"\.(py|ipynb|txt|json|toml|yaml|yml|csv)$", found[5]):
                rows.append((found[1], found[2], found[3], 0 if found[4] == "-" else int(found[4]), found[5]))
        return sorted(rows, key=lambda row: not row[4].endswith(".py"))[:MOST_FILES]

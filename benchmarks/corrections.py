"""Which real corrections ``check`` would have asked for: programs as they stood before the commits of corrections.tsv.

    python benchmarks/corrections.py CLONES [REPOSITORY …]

CLONES holds clones of the repositories with their history, named OWNER+NAME (or OWNER+NAME/repo, bare).  Each tree is
laid out as it was before the commit, without running anything of it outside ``check``; the defect counts as named when
an error or warning stands within two lines of it.  What is not cloned is passed over and counted.  The lines of
corrections that came from issues or were turned round by hand are those of the program that was judged, and may
differ from the parent commit's.
"""

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

from bowerbird.errors import BowerbirdError
from bowerbird.reading.check import check

TABLE = Path(__file__).with_name("corrections.tsv")


def history(clones: Path, repository: str) -> Path | None:
    """The git directory of a clone; None where there is none."""
    folder = clones / repository.replace("/", "+")
    return next((path for path in (folder / "repo", folder / ".git", folder) if (path / "HEAD").is_file()), None)


def lay_out(git: Path, commit: str, folder: Path) -> None:
    """Writes the tree before ``commit`` into ``folder``."""
    archive = subprocess.run(["git", f"--git-dir={git}", "archive", f"{commit}^"], check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)


def named(path: Path, lines: list[int]) -> str:
    """The finding at one of the lines, or what stands for none."""
    try:
        findings = check(path).findings
    except BowerbirdError as error:
        return f"- ({error})"
    loud = [f for f in findings if f.severity in ("error", "warning")]
    near = [f for f in loud if any(abs(f.line - line) <= 2 for line in lines)]
    return f"{near[0].severity} {near[0].rule}@{near[0].line}" if near else "-"


def main(clones: Path, wanted: list[str]) -> None:
    found, judged, absent = 0, 0, 0
    with TABLE.open(newline="") as file:
        rows = [r for r in csv.DictReader(file, delimiter="\t") if not wanted or r["repository"] in wanted]
    for row in rows:
        git = history(clones, row["repository"])
        with tempfile.TemporaryDirectory() as folder:
            try:
                if git is None:
                    raise FileNotFoundError(row["repository"])
                lay_out(git, row["commit"], Path(folder))
            except (FileNotFoundError, subprocess.CalledProcessError):
                absent += 1
                continue
            verdict = named(Path(folder) / row["file"], [int(line) for line in row["lines"].split()])
        judged += 1
        found += verdict != "-" and not verdict.startswith("- (")
        print(f"{row['repository']} {row['commit']} {row['ids']}: {verdict}", flush=True)
    print(f"named {found} of {judged}; not at hand: {absent}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])

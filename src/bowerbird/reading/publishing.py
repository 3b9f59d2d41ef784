"""Pages of the documentation that are generated: written into a folder, or compared with what is there."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

Pages = Callable[[], Iterable[tuple[str, str]]]
"""The name and the text of every page."""


def publish(arguments: list[str], folder: Path, pages: Pages, stale: Callable[[Path], list[str]]) -> int:
    """Writes the pages into the folder that is named (default: ``folder``); with --check, says which are stale."""
    folder = next((Path(word) for word in arguments if not word.startswith("-")), folder)
    if "--check" in arguments:
        old = stale(folder)
        print("\n".join(f"stale: {name}" for name in old) or "All pages are up to date.")
        return int(bool(old))
    for name, text in pages():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path, file=sys.stderr)
    return 0

"""``read``: a program explained in seven steps, every number and name of which traces to a fact."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from bowerbird.reading.check import judge
from bowerbird.reading.exercised import Exercised
from bowerbird.reading.explain import events, families, layers, losses, perturb, statics
from bowerbird.reading.explain.reading import Reading, Step
from bowerbird.reading.explain.recipes import driven
from bowerbird.reading.explain.steps import FOLDED, STEPS
from bowerbird.reading.explain.study import SavedPicture, Study
from bowerbird.reading.explain.writer import Writer
from bowerbird.reading.findings import in_order
from bowerbird.reading.program import Program
from bowerbird.reading.running.launch import Child, warm
from bowerbird.reading.running.observation import observe
from bowerbird.reading.source import open_source
from bowerbird.reading.wording import Language

LARGEST_PICTURE = 400_000
_MIMES = {b"\x89PNG\r\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


def read(
    target: Path | str, *, lang: Language = "en", measure: int = perturb.MOST, steps: int = 6, seconds: float = 12.0,
    child: Child | None = None,
) -> Reading:  # fmt: skip
    """Reads a file, a folder, a notebook, a recipe or ``module:Class``.

    ``measure`` is how many settings are altered and run again; ``steps`` and ``seconds`` bound each execution.
    """
    with studied(target, measure=measure, steps=steps, seconds=seconds, child=child) as study:
        return write(study, lang)


@contextlib.contextmanager
def studied(
    target: Path | str, *, measure: int = perturb.MOST, patience: float = perturb.PATIENCE, steps: int = 6,
    seconds: float = 12.0, child: Child | None = None,
) -> Iterator[Study]:  # fmt: skip
    """A study as a context: inside, patched versions of the program can still be run.

    ``patience`` is for how many seconds settings are altered and run again.  A warm ``child`` can serve many studies.
    """
    own = driven(target)
    source, shown = own if own is not None else (open_source(target), ())
    program = Program(source)
    with contextlib.ExitStack() as stack:
        child = stack.enter_context(warm(child))
        run = stack.enter_context(observe(source, steps=steps, seconds=seconds, child=child))
        study = Study(source, program, run, in_order(judge(program, run)), shown=shown)
        study.pictures = _pictures(study, child.folder)
        prepare(study)
        perturb.note(study, most=measure, seconds=patience)
        yield study


def prepare(study: Study) -> None:
    """Adds what is derived from the source and the run."""
    for part in (statics, families, layers, events, losses):
        part.note(study)


def write(study: Study, lang: Language) -> Reading:
    """The reading of a prepared study."""
    w = Writer(study, lang)
    steps = tuple(
        Step(number, w.words(f"title.{key}"), tuple(step(w)), key in FOLDED)
        for number, (key, step) in enumerate(STEPS.items(), 1)
    )
    title = w.say("title.file", study.titled)
    return Reading(title, lang, steps, study.source, study.facts, Exercised(study.program, study.run))


def _pictures(study: Study, folder: Path) -> list[SavedPicture]:
    """The picture files of the run, from the scratch folder in which all that it wrote lies."""
    files = {f.subject: f["bytes"] for f in study.facts.of("run.file")}
    for scratch in sorted(folder.glob("scratch-*[0-9]"), reverse=True):
        found = {n: data for n in files if (data := _within(scratch, n)) is not None}
        if files and all(len(found.get(n, b"")) == size or size > LARGEST_PICTURE for n, size in files.items()):
            return [SavedPicture(n, data, mime) for n, data in found.items() if (mime := _mime(data))]
    return []


def _within(scratch: Path, name: str) -> bytes | None:
    """A plain file of a scratch folder, opened without following a link on any part of its way; None for any other."""
    parts = Path(name).parts
    if not parts or ".." in parts or Path(name).is_absolute():
        return None
    folder = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        with os.fdopen(os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder), "rb") as file:
            plain = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            return file.read(LARGEST_PICTURE + 1)[: LARGEST_PICTURE + 1] if plain else None
    except OSError:
        return None
    finally:
        os.close(folder)


def _mime(data: bytes) -> str:
    return next((mime for magic, mime in _MIMES.items() if data.startswith(magic)), "")

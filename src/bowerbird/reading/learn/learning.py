"""The verb ``learn``: a topic as text, an exercise as a file, an answer checked.  Loads no torch.

from bowerbird.reading.learn import learning
print(learning.learn("gan"))
file = learning.start("mend-the-generator-step", Path.cwd())
learning.check(file).passed
"""

from pathlib import Path

from bowerbird.reading.learn import pages
from bowerbird.reading.learn.exercise import exercise, exercise_of, of_topic, write_starter
from bowerbird.reading.learn.running import Verdict, check_answer
from bowerbird.reading.learn.topic import topic, topics
from bowerbird.reading.wording import Language


def learn(subject: str | None = None, lang: Language = "en") -> str:
    """The page about a topic, as text; without one, the topics and their exercises."""
    if subject is None:
        return contents(lang)
    return pages.page(topic(subject), pages.Form(lang, latex=False))


def contents(lang: Language = "en") -> str:
    """One line per topic, and below it its exercises."""
    lines = []
    for found in topics().values():
        lines.append(f"{found.id:<13}{found.title(lang)}")
        lines += [f"    {one.id:<26}{one.title(lang)}" for one in of_topic(found.id)]
    return "\n".join(lines)


def start(name: str, folder: Path | None = None, lang: Language = "en") -> Path:
    """Writes the starter of an exercise into a folder (default: the current one) and returns its path."""
    return write_starter(exercise(name), folder or Path.cwd(), lang)


def check(file: Path | str, name: str | None = None) -> Verdict:
    """Runs the answer in a file under limits; ``name`` is its exercise where the file does not say it."""
    path = Path(file)
    found = exercise_of(path) if name is None else exercise(name)
    return check_answer(found, path.read_text(encoding="utf-8"))

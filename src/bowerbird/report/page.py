"""A page: one HTML file that needs nothing else, made from a template of this package.

Every value is escaped by the template engine; only ``Markup`` that we made ourselves (curves) is put in as it is.
"""

from pathlib import Path
from typing import Any

import jinja2

from bowerbird.data.writing import write_atomically
from bowerbird.report import numbers


def _across(n: int) -> int:
    """How many of n cards stand side by side, so that few rows end early: 4 are 2 × 2, 6 are 3 × 2."""
    return {1: 1, 2: 2, 4: 2}.get(n, 3)


def write_page(path: Path, template: str, **context: Any) -> Path:
    """Renders ``templates/<template>`` into the file ``path`` and returns its path."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=numbers.count, duration=numbers.duration)
    environment.globals["across"] = _across
    text = environment.get_template(template).render(**context)
    write_atomically(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))
    return path

"""What the pages share: the runs, what is being trained and drawn, and the templates."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from bowerbird import __version__
from bowerbird.report import numbers
from bowerbird.studio.closest import Closest
from bowerbird.studio.drawing import Drawing
from bowerbird.studio.language import Refusal, words_of
from bowerbird.studio.results import Results
from bowerbird.studio.shelf import Shelf
from bowerbird.studio.trainings import Trainings
from bowerbird.studio.uploads import Pictures

HERE = Path(__file__).parent


@dataclass
class Studio:
    """What the pages share."""

    shelf: Shelf
    scratch: Path
    """A folder that goes when the studio ends."""
    local: bool = True
    """Whether only this machine can reach the pages, so that paths of it may be named."""
    drawing: Drawing = field(default_factory=Drawing)
    closest: Closest = field(default_factory=Closest)
    programs: Any = None
    """Pasted programs, see ``code_page``."""

    def __post_init__(self) -> None:
        self.trainings = Trainings(self.shelf)
        self.results = Results(self.scratch / "results")
        self.pictures = Pictures(self.scratch / "pictures")
        self.templates = _templates()

    def page(self, request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
        """A template in the reader's language."""
        return HTMLResponse(
            self.part(request, template, **context), status, headers={"Vary": "Accept-Language, Cookie"}
        )

    def part(self, request: Request, template: str, **context: Any) -> Markup:
        words = words_of(request)
        text = self.templates.get_template(template).render(
            t=words, path=request.url.path, studio=self, version=__version__, **context
        )
        return Markup(text)


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=numbers.count, duration=numbers.duration)
    return environment


def of(request: Request) -> Studio:
    """The studio that a request is for."""
    studio: Studio = request.app.state.studio
    return studio


async def form_of(request: Request) -> dict[str, Any]:
    """A posted form, which the page's script sends as JSON."""
    try:
        form = await request.json()
    except ValueError:
        form = None
    if not isinstance(form, dict):
        raise Refusal("refused.form")
    return form

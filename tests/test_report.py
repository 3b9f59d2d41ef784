"""Pictures are exact, numbers keep the digits that are known, pages need nothing but themselves."""

import json
import math
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from bowerbird.data.writing import save_png
from bowerbird.media.image.imageset import ImageSet
from bowerbird.media.image.pictures import GAP, picture, sheet
from bowerbird.media.image.sheets import ROWS, real_sheet
from bowerbird.report.curves import CurveSeries, Dot, Panel, curve, dots, log_worthwhile
from bowerbird.report.numbers import count, duration, part_of, with_error, with_interval
from bowerbird.report.run import MOST_GRIDS, write_run_report
from bowerbird.report.table import marks, summarise, value_text
from bowerbird.spec import Classes, Spec, Tensors


def as_tensor(image: Image.Image) -> torch.Tensor:
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, len(image.getbands())).permute(2, 0, 1)


def random_images(n: int, channels: int, height: int = 5, width: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randint(0, 256, (n, channels, height, width), generator=generator, dtype=torch.uint8)


# ------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("scale", [1, 3])
def test_a_sheet_shows_every_pixel_of_every_image_in_its_place(channels: int, scale: int) -> None:
    images = random_images(5, channels)
    drawn = as_tensor(sheet(images, columns=3, scale=scale))
    step_y, step_x = 5 * scale + GAP, 7 * scale + GAP
    assert drawn.shape == (channels, 2 * step_y + GAP, 3 * step_x + GAP)
    rest = torch.ones(drawn.shape[1:], dtype=torch.bool)
    for i, image in enumerate(images):
        rows = slice(GAP + i // 3 * step_y, GAP + i // 3 * step_y + 5 * scale)
        columns = slice(GAP + i % 3 * step_x, GAP + i % 3 * step_x + 7 * scale)
        enlarged = image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        assert torch.equal(drawn[:, rows, columns], enlarged)
        rest[rows, columns] = False
    paper = drawn[:, rest]
    assert torch.equal(paper, paper[:, :1].expand_as(paper)), "gaps and the empty place have one colour"


def test_small_images_are_enlarged_by_a_whole_number_and_large_ones_are_not() -> None:
    sizes = {28: 56, 32: 64, 64: 64, 20: 60, 200: 200}
    for size, shown in sizes.items():
        assert sheet(random_images(1, 1, size, size)).size == (shown + 2 * GAP, shown + 2 * GAP)


def test_a_sheet_is_nearly_square_by_default_and_has_no_more_columns_than_images() -> None:
    images = random_images(10, 1)
    assert sheet(images, scale=1).width == 4 * (7 + GAP) + GAP
    assert sheet(images[:2], columns=8, scale=1).width == 2 * (7 + GAP) + GAP


def test_labels_leave_the_images_as_they_are() -> None:
    images = random_images(2, 1, 40, 40)
    drawn = as_tensor(sheet(images, labels=["3", "cat"], scale=1))
    assert torch.equal(drawn[:, GAP : GAP + 40, GAP : GAP + 40], images[0])
    assert drawn.shape[1] > 40 + 2 * GAP
    with pytest.raises(ValueError, match="1 labels were given for 2"):
        sheet(images, labels=["3"])


def test_what_cannot_be_drawn_is_refused() -> None:
    for shape in ((0, 1, 4, 4), (1, 5, 4, 4)):
        with pytest.raises(ValueError, match="1 to 4 channels"):
            sheet(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_saved_picture_reads_back_exactly(tmp_path: Path, channels: int) -> None:
    (image,) = random_images(1, channels)
    path = save_png(tmp_path / "new" / "image.png", picture(image))
    assert torch.equal(as_tensor(Image.open(path)), image)
    assert [p.name for p in path.parent.iterdir()] == ["image.png"], "no temporary file is left"


def test_real_sheets_have_one_column_per_class() -> None:
    labels = torch.arange(40) % 4
    images = (labels * 10).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    spec = Spec("image", Tensors((1, 2, 2)), {"label": Classes(("a", "b", "c", "d"))})
    drawn = as_tensor(real_sheet(ImageSet(images, {"label": labels}), spec))
    step = (drawn.shape[2] - GAP) // 4
    assert (drawn.shape[1] - GAP) // step == ROWS
    for row in range(ROWS):
        middles = drawn[0, row * step + step // 2, step // 2 :: step]
        assert middles.tolist() == [0, 10, 20, 30]


# ------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (12.3456, 0.213, "12.35 ± 0.21"),
        (12.3456, 0.4, "12.3 ± 0.4"),
        (0.81234, 0.0123, "0.812 ± 0.012"),
        (1234.6, 21.0, "1,235 ± 21"),
        (1234.6, 430.0, "1,200 ± 400"),
        (12.3456, None, "12.35"),
        (0.00034, None, "0.0003400"),
        (16.0, None, "16"),
        (0.0, 0.0, "0"),
        (math.nan, None, "nan"),
        (None, None, "–"),
        (-3.0, 0.0996, "-3.00 ± 0.10"),
        (0.2, 1e-17, "0.2000"),
        (0.2, 1e-9, "2.000000000e-01 ± 1.0e-09"),
        (1.234e-8, 5e-10, "1.23e-08 ± 5e-10"),
        (4.303e10, 2e4, "4.3030000e+10 ± 2.0e+04"),
    ],
)
def test_a_value_has_as_many_digits_as_its_error_allows(value: float, stderr: float | None, text: str) -> None:
    assert with_error(value, stderr) == text


def test_intervals_and_ratios_have_the_digits_that_make_sense() -> None:
    assert with_interval(0.01234, 0.008, 0.0195) == "0.012 (0.008 … 0.019)"
    assert with_interval(1.0, 1.0, 1.0) == "1"
    assert [part_of(x) for x in (0.35, 9.99, 12.3, 430300000.0)] == ["35% of", "999% of", "12 times", "4.3e+08 times"]


def test_units_are_readable() -> None:
    durations = {0.00034: "340 µs", 0.0123: "12.3 ms", 12.34: "12.3 s", 59.96: "1 min 00 s", 3599.7: "1 h 00 min"}
    assert {seconds: duration(seconds) for seconds in durations} == durations
    assert duration(125) == "2 min 05 s" and duration(8100) == "2 h 15 min"
    assert [count(n) for n in (950, 9999, 1_240_000)] == ["950", "9,999", "1.24 M"]
    assert count(2.5e15, "FLOP") == "2.5 PFLOP"
    assert value_text(0.0207, 0.0008, "s/image") == "20.7 ± 0.8 ms"
    assert value_text(2.5, None, "nats/image") == "2.500"


# ------------------------------------------------------------------------------------------------- the table


def test_the_standard_error_is_that_of_the_mean() -> None:
    values = [1.0, 2.0, 3.0, 6.0]
    summary = summarise(values)
    assert summary.mean == 3.0
    assert summary.stderr == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3 / 4))
    alone = summarise([5.0], own_stderr=0.25)
    assert (alone.mean, alone.stderr) == (5.0, 0.25)


def test_the_best_cell_is_marked_by_the_direction_of_its_metric() -> None:
    cells = [summarise([3.0]), None, summarise([1.0]), summarise([math.nan]), summarise([2.0])]
    assert marks(cells, "lower") == ["", "", "best", "", ""]
    assert marks(cells, "higher") == ["best", "", "", "", ""]
    assert marks(cells, "") == [""] * 5


def test_cells_within_two_standard_errors_of_the_best_are_tied() -> None:
    # Two values m ± d have s = √2·d, so the standard error d; two such cells are told apart from 2·√2·d on.
    def pair(mean: float, stderr: float):
        return summarise([mean - stderr, mean + stderr])

    assert pair(1, 0.1).stderr == pytest.approx(0.1)
    reach = 2 * math.hypot(0.1, 0.1)
    cells = [pair(1, 0.1), pair(1 + 0.99 * reach, 0.1), pair(1 + 1.01 * reach, 0.1)]
    assert marks(cells, "lower") == ["best", "tied", ""]


def test_nothing_is_best_where_all_are_equal() -> None:
    assert marks([summarise([2.0]), summarise([2.0])], "lower") == ["", ""]
    assert marks([summarise([2.0]), None], "lower") == ["", ""]
    assert marks([summarise([1.0]), summarise([1.0]), summarise([2.0])], "lower") == ["best", "best", ""]


# ------------------------------------------------------------------------------------------------- curves


def test_curves_are_well_formed_deterministic_and_take_the_colours_of_the_page() -> None:
    steps = list(range(1000))
    panel = Panel(
        "<Loss>", [CurveSeries("D", steps, [1 / (s + 1) for s in steps]), CurveSeries("G", steps, [2.0] * 1000)]
    )
    svg = curve(panel)
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == "<Loss>"
    assert "var(--series-1)" in svg and "var(--series-2)" in svg and "var(--muted)" in svg
    assert curve(panel) == svg
    assert "http" not in svg and ' id="axes' not in svg
    assert len(svg) < 60_000, "long series are thinned"
    assert {"D", "G"} <= {text.text for text in root.iter("text")}


def test_values_that_are_not_finite_are_left_out() -> None:
    y = [1.0, math.nan, math.inf, -math.inf, 2.0]
    svg = curve(Panel("loss", [CurveSeries("D", range(5), y)]))
    assert svg == curve(Panel("loss", [CurveSeries("D", [0, 4], [1.0, 2.0])]))
    curve(Panel("nothing", [CurveSeries("D", [], [])]))
    assert "nan" not in curve(Panel("loss", [CurveSeries("D", [1], [math.nan])]))


def test_logarithmic_axes_are_for_wide_positive_ranges() -> None:
    assert log_worthwhile([0.1, 20.0])
    assert not log_worthwhile([1.0, 20.0]) and not log_worthwhile([-1.0, 1000.0]) and not log_worthwhile([math.nan])


def test_dots_show_every_name() -> None:
    root = ElementTree.fromstring(dots("quality", [Dot("gan", 3.0, 0.5), Dot("a & b", 4.0)], "distance"))
    assert {"gan", "a & b", "distance"} <= {text.text for text in root.iter("text")}


# ------------------------------------------------------------------------------------------------- run reports


class Page(HTMLParser):
    """What a page refers to and what it says."""

    def __init__(self, path: Path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.addresses: list[str] = []
        self.text = ""
        self.tags: list[str] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data

    def assert_self_contained(self) -> None:
        outside = [a for a in self.addresses if not a.startswith(("data:image/png;base64,", "#", "runs/"))]
        assert outside == []
        assert "http:" not in self.source and "https:" not in self.source
        assert "@import" not in self.source and "link" not in self.tags
        assert self.source.count("url(") == self.source.count("url(#"), "only clips inside the same picture"


PROTOCOL = {"n_generated": 2000, "n_reference": 1500, "extractor": "digits", "resizer": "", "parameters": {}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run.toml").write_text(
        'title = "Two <b>players</b>"\n[model]\nfamily = "gan"\n[model.net]\nname = "convnet"\n[data]\nsource = "x"\n'
    )
    rows = [
        {"step": s, "examples": 128 * s, "seconds": 0.5 * s, "D/loss": 1.0 / s, "G/loss": 2.0, "D/grad_norm": 0.5,
         "lr": 1e-3}
        for s in range(1, 200)
    ]  # fmt: skip
    lines = [json.dumps(row) for row in [*rows, {"step": 199, "event": "<i>resumed</i>"}]]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 200, "D/lo')
    (tmp_path / "samples").mkdir()
    for step in range(100, 2100, 100):
        save_png(tmp_path / "samples" / f"step-{step:08d}.png", sheet(random_images(4, 1)))
    (tmp_path / "environment.json").write_text('{"processor": "Abacus 3000", "data": "digits: 10,997 images"}')
    measurements = [
        {"name": "frechet_distance", "value": 12.3456, "unit": "1", "stderr": 0.213, "protocol": PROTOCOL},
        {"name": "seconds_per_image", "value": 0.00034, "unit": "s/image", "stderr": None, "protocol": {}},
        {"name": "of_a_plugin", "value": None, "unit": "1", "stderr": None, "protocol": {}},
    ]
    (tmp_path / "measurements.json").write_text(json.dumps({"measurements": measurements}))
    return tmp_path


def test_a_run_report_shows_what_the_folder_holds_and_needs_nothing_else(run: Path) -> None:
    path = write_run_report(run)
    assert path == run / "report.html"
    page = Page(path)
    page.assert_self_contained()
    for text in (
        "gan (convnet), trained on digits: 10,997 images", "199", "25.5 k", "1 min 40 s", "256 per second",
        "Loss of D", "Loss of G", "grad norm", "Fréchet distance", "12.35 ± 0.21", "2,000 samples against 1,500 real",
        "340 µs", "Of a plugin", "Abacus 3000", 'family = "gan"',
    ):  # fmt: skip
        assert text in page.text, text
    assert "resizer" not in page.text, "protocol fields that say nothing are left out"
    assert page.tags.count("svg") == 4


def test_many_grids_are_thinned_to_the_first_the_last_and_some_between(run: Path) -> None:
    page = Page(write_run_report(run))
    assert page.tags.count("button") == MOST_GRIDS
    assert "Step 2,000" in page.text and "100" in page.text


def test_titles_and_events_are_escaped(run: Path) -> None:
    page = Page(write_run_report(run))
    assert "b" not in page.tags and "i" not in page.tags
    assert "Two <b>players</b>" in page.text and "<i>resumed</i>" in page.text


@pytest.mark.parametrize("missing", ["run.toml", "metrics.jsonl", "samples", "environment.json", "measurements.json"])
def test_any_part_may_be_missing(run: Path, missing: str) -> None:
    (run / missing).rename(run / "elsewhere")
    Page(write_run_report(run)).assert_self_contained()


def test_an_empty_folder_is_reported_as_such(tmp_path: Path) -> None:
    page = Page(write_run_report(tmp_path))
    assert tmp_path.name in page.text and "has not logged a step yet" in page.text


def test_a_step_that_a_resumed_run_logged_again_counts_once(tmp_path: Path) -> None:
    rows = [{"step": s, "G/loss": loss} for s, loss in ((1, 5.0), (2, 4.0), (3, 99.0), (3, 3.0), (4, 2.0))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    resumed = write_run_report(tmp_path).read_text()
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows if row["G/loss"] != 99.0))
    assert write_run_report(tmp_path).read_text() == resumed

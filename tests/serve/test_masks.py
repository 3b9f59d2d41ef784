"""/v1/images/edits with a mask: what is transparent in it is made anew by a model that denoises, the rest stays."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bowerbird import api
from later import later

openai = later("openai")
SIDE = 8


@pytest.fixture(scope="module")
def client(address: str) -> "openai.OpenAI":
    return openai.OpenAI(base_url=f"{address}/v1", api_key="a-key", max_retries=0)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)))


def png(array: np.ndarray) -> BytesIO:
    file = BytesIO()
    Image.fromarray(array).save(file, "PNG")
    file.name = "picture.png"
    file.seek(0)
    return file


def picture(side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)


def erased(side: int = SIDE, part: slice = slice(2, 6)) -> np.ndarray:
    mask = np.full((side, side, 4), 255, np.uint8)
    mask[part, part, 3] = 0
    return mask


def test_the_transparent_part_of_a_mask_is_made_anew(client: "openai.OpenAI", runs: dict[str, Path]) -> None:
    options = {"steps": 3, "resample": 2}
    answer = client.images.edit(
        model="classes", image=png(picture()), mask=png(erased()), prompt="upper",
        extra_body={"seed": 5, "options": options},
    )  # fmt: skip
    made = pixels(base64.b64decode((answer.data or [])[0].b64_json or ""))
    hidden = np.zeros((SIDE, SIDE), bool)
    hidden[2:6, 2:6] = True
    assert (made[~hidden] == picture()[~hidden]).all() and (made[hidden] != picture()[hidden]).any()
    ours = api.edit(
        runs["classes"], "inpaint", source=picture()[..., None], mask=hidden, seed=5, given={"label": "upper"},
        options=options,
    )  # fmt: skip
    assert np.array_equal(made, ours[0][..., 0])


def test_an_erased_picture_is_its_own_mask_and_n_answers_come(client: "openai.OpenAI") -> None:
    grey = np.dstack([picture()] * 3 + [erased()[..., 3]])
    more: dict[str, Any] = {"extra_body": {"seed": 1, "options": {"steps": 2, "resample": 1}}}
    answer = client.images.edit(model="classes", image=png(grey), prompt="", n=2, **more)
    made = [pixels(base64.b64decode(one.b64_json or "")) for one in answer.data or []]
    assert len(made) == 2 and not np.array_equal(made[0], made[1])
    assert (made[0][:2] == picture()[:2]).all()


def test_a_mask_is_resized_with_its_picture(client: "openai.OpenAI") -> None:
    more: dict[str, Any] = {"extra_body": {"options": {"steps": 2, "resample": 1}}}
    mask = png(erased(4 * SIDE, slice(8, 24)))
    answer = client.images.edit(model="classes", image=png(picture(4 * SIDE)), mask=mask, prompt="", **more)
    assert pixels(base64.b64decode((answer.data or [])[0].b64_json or "")).shape[:2] == (SIDE, SIDE)


@pytest.mark.parametrize(
    ("mask", "more", "said"),
    [
        (None, {}, "Send a mask whose transparent pixels"),
        (erased(9), {}, "The mask is 9x9 pixels, the picture 8x8"),
        (erased(SIDE, slice(0, 0)), {}, "The mask covers nothing"),
        (erased(), {"options": {"steps": 10**6}}, "steps = 1000000 is more than this server allows"),
        (erased(), {"options": {"stps": 3}}, "There is no option of inpaint 'stps'; did you mean 'steps'"),
    ],
)
def test_what_cannot_be_completed_is_said(client: "openai.OpenAI", mask: Any, more: dict[str, Any], said: str) -> None:
    files = {} if mask is None else {"mask": png(mask)}
    with pytest.raises(openai.BadRequestError, match=said):
        client.images.edit(model="classes", image=png(picture()), prompt="", extra_body=more, **files)


def test_a_mask_for_a_model_that_translates_is_refused(client: "openai.OpenAI") -> None:
    with pytest.raises(openai.BadRequestError, match="The model 'edits' edits whole pictures; leave the mask out"):
        client.images.edit(model="edits", image=png(picture()), mask=png(erased()), prompt="")

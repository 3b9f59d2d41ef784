"""Pictures that clients send: what comes back of them, what is refused, and what their decoder cannot reach."""

import io
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from bowerbird.media.image import pixels
from bowerbird.serve import uploaded
from bowerbird.serve.uploaded import NoPicture, decoded


def png(x: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(x).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def photo() -> bytes:
    return png(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def test_pixels_are_those_of_the_file_fitted_as_data_are(photo: bytes) -> None:
    whole = pixels.as_stored(io.BytesIO(photo))
    np.testing.assert_array_equal(decoded(photo, 10_000, 40, 60, cropped=True), whole)
    np.testing.assert_array_equal(
        decoded(photo, 10_000, 16, 16, cropped=True), pixels.fit_array(whole[None], 16, 16)[0]
    )
    assert decoded(photo, 10_000, 30, 30, cropped=False).shape == (20, 30, 3)
    assert decoded(png(np.zeros((9, 7), np.uint8)), 10_000, 30, 30, cropped=False).shape == (9, 7, 1)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "unknown"), (b"GIF8", "unknown"), (b"\x89PNG\r\n\x1a\n" + b"x" * 30, "broken")]
)
def test_what_is_no_picture_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(NoPicture) as refused:
        decoded(content, 100, 8, 8, cropped=True)
    assert refused.value.reason in (reason, "unknown")


def test_what_is_too_large_is_refused_before_it_is_unpacked(photo: bytes) -> None:
    with pytest.raises(NoPicture, match="has 2400 pixels; the limit is 2399"):
        decoded(photo, 2399, 8, 8, cropped=True)


def test_the_child_stays_and_a_fork_that_dies_ends_nothing_else(photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded(photo, 10_000, 8, 8, cropped=True)
    child = uploaded._idle[-1]
    bomb = png(np.zeros((1, 1), np.uint8))
    many = [threading.Thread(target=decoded, args=(bomb, 9, 1, 1), kwargs={"cropped": True}) for _ in range(5)]
    for one in many:
        one.start()
    for one in many:
        one.join()
    assert child in uploaded._idle and len(uploaded._idle) <= uploaded.AT_ONCE
    child.end()  # as after a time-out: whoever asks next gets the reason, and the one after that a new child
    uploaded._idle.append(uploaded._idle.pop(uploaded._idle.index(child)))
    with pytest.raises(NoPicture, match="too much time or memory"):
        decoded(photo, 10_000, 8, 8, cropped=True)
    assert decoded(photo, 10_000, 8, 8, cropped=True).shape == (8, 8, 3)


@pytest.mark.parametrize(
    "said", [b"", b"x" * 19, uploaded.REPLY.pack(b"", 9, 9, 3) + b"x", uploaded.REPLY.pack(b"?", 0, 0, 0)]
)
def test_what_a_hostile_fork_may_reply_is_no_picture(said: bytes) -> None:
    with pytest.raises(NoPicture):
        uploaded._read(said, 100)


def test_the_decoder_can_neither_read_files_nor_reach_anyone() -> None:
    script = """
import os, socket
from pathlib import Path
from bowerbird.serve import decoder
decoder.limit()
why = decoder.confine(Path(os.devnull), decoder.packages())
print(why or "confined")
for attempt in (lambda: open("/etc/passwd"), lambda: socket.create_connection(("127.0.0.1", 9))):
    try:
        attempt()
        print("reached")
    except OSError as error:
        print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    confined, *attempts = done.stdout.split("\n")[:3]
    if confined != "confined":
        pytest.skip(f"this machine cannot confine a process: {confined}")
    assert attempts == ["PermissionError", "PermissionError"]

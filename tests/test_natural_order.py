"""Files in natural order: the fast way gives what the slow key gives."""

import random

from bowerbird.data import names as file_names
from bowerbird.data.names import natural, naturally


def test_numbers_count_by_their_value():
    assert naturally(["s10.png", "s2.png", "s1.png"]) == ["s1.png", "s2.png", "s10.png"]
    assert naturally(["b/2", "a/10", "b/1", "a/9"]) == ["a/9", "a/10", "b/1", "b/2"]


def test_groups_of_names_that_overlap_are_in_order_too():
    names = ["a1b", "a3b", "a2c", "a4c", "a-1", "a01b"]
    assert naturally(names) == sorted(names, key=natural) == ["a01b", "a1b", "a2c", "a3b", "a4c", "a-1"]


def test_any_names_are_sorted_as_by_the_key():
    rng = random.Random(0)
    for _ in range(2000):
        names = {"".join(rng.choices("019a-/. é٣", k=rng.randint(1, 5))) for _ in range(8)}
        assert naturally(names) == sorted(names, key=natural)


def test_numbered_files_need_the_key_of_few(monkeypatch):
    asked = []
    key = natural
    monkeypatch.setattr(file_names, "natural", lambda text: asked.append(text) or key(text))
    names = [f"{kind}/{number}.png" for number in range(2000) for kind in ("cat", "dog")]
    assert naturally(names)[:3] == ["cat/0.png", "cat/1.png", "cat/2.png"]
    assert len(asked) < 50

"""``track``: equal algorithms are found equal whatever was rewritten, and changes are named at their lines."""

import os
import subprocess
from pathlib import Path

import pytest
from corpus import Pair, pairs

from bowerbird import cli
from bowerbird.errors import BowerbirdError
from bowerbird.reading.history.changelog import changelog, track_range
from bowerbird.reading.history.show import changelog_lines, lines
from bowerbird.reading.history.track import track
from bowerbird.reading.running.launch import Child

ALL = os.environ.get("BOWERBIRD_CORPUS") == "all"
FEW = ["wgan_fstrings", "vae_logvar_forms", "rnn_learning_rate"]

BASE = """import torch
from torch import nn

net = nn.Linear(4, 1)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(20):
    x = torch.randn(16, 4)
    loss = (net(x) - x.sum(1, keepdim=True)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""
SQUARED = BASE.replace(".pow(2).mean()", ".square().mean()")
FASTER = SQUARED.replace("lr=0.1", "lr=0.5")
COMMENTED = FASTER.replace("for step", "# the loop\nfor step")


@pytest.mark.parametrize("pair", [p for p in pairs() if ALL or p.name in FEW], ids=lambda p: p.name)
def test_pair_is_told_right(pair: Pair, child: Child):
    result = track(pair.before, pair.after, child=child)
    told = [(c.what, c.evidence) for c in result.changes]
    assert result.behavioural_change == pair.behavioural, told
    assert not pair.what or {c.what for c in result.changes} & set(pair.what), told
    assert set(result.to_json()) == {"behavioural_change", "inconclusive", "changes"}


def test_another_order_of_building_and_another_seed_change_nothing(tmp_path: Path, child: Child):
    two = BASE.replace("net = nn.Linear(4, 1)", "torch.manual_seed(1)\nnet = nn.Linear(4, 1)\nother = nn.Linear(4, 1)")
    swapped = two.replace("net = nn.Linear(4, 1)\nother = nn.Linear(4, 1)",
                          "other = nn.Linear(4, 1)\nnet = nn.Linear(4, 1)").replace("seed(1)", "seed(7)")  # fmt: skip
    (tmp_path / "a.py").write_text(two)
    (tmp_path / "b.py").write_text(swapped)
    assert track(tmp_path / "a.py", tmp_path / "b.py", child=child).changes == ()


def test_lines_that_ran_in_neither_version_are_no_change_and_no_verdict(tmp_path: Path, child: Child) -> None:
    late = BASE + "    if float(loss) < -1.0:\n        x = x + 1.0\n"
    (tmp_path / "a.py").write_text(late)
    (tmp_path / "b.py").write_text(late.replace("x + 1.0", "x * 3.0"))
    assert cli.main(["track", str(tmp_path / "a.py"), str(tmp_path / "b.py"), "--json"]) == 3
    result = track(tmp_path / "a.py", tmp_path / "b.py", child=child)
    assert result.inconclusive and not result.behavioural_change and result.to_json()["inconclusive"]
    (tmp_path / "b.py").write_text(late.replace("lr=0.1", "lr=0.3"))
    assert track(tmp_path / "a.py", tmp_path / "b.py", child=child).behavioural_change


def test_changelog_of_a_repository(tmp_path: Path):
    def git(*words: str) -> None:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
        subprocess.run(command, check=True, capture_output=True)

    git("init", "-q")
    messages = ("First", "Fix the loss", "Tidy", "Comments")
    for text, message in zip((BASE, SQUARED, FASTER, COMMENTED), messages, strict=True):
        (tmp_path / "train.py").write_text(text)
        git("add", "train.py")
        git("commit", "-q", "-m", message)
    entries = changelog(tmp_path, "train.py", "HEAD~3..HEAD")
    assert [e.message for e in entries] == ["Fix the loss", "Tidy", "Comments"]
    assert [e.result is not None and e.result.behavioural_change for e in entries] == [False, True, False]
    change = entries[1].result.changes[0]
    assert (change.what, change.line_before, change.line_after) == ("optimiser", 5, 5)
    assert "优化器" in "\n".join(changelog_lines(entries, "zh"))
    with pytest.raises(BowerbirdError, match="no commit nowhere"):
        track_range(tmp_path, "train.py", "nowhere..HEAD")
    with pytest.raises(BowerbirdError, match="is not in commit"):
        track_range(tmp_path, "other.py", "HEAD~1..HEAD")
    with pytest.raises(BowerbirdError, match="not a git repository"):
        track_range(tmp_path.parent, "train.py", "HEAD~1..HEAD")


def test_equal_text_needs_no_run(tmp_path: Path):
    (tmp_path / "a.py").write_text(FASTER)
    (tmp_path / "b.py").write_text(COMMENTED)
    result = track(tmp_path / "a.py", tmp_path / "b.py")
    assert "no behavioural change" in "\n".join(lines(result))
    assert "行为没有变化" in "\n".join(lines(result, "zh", markdown=True))
    (tmp_path / "b.py").write_text("def f(:")
    with pytest.raises(BowerbirdError, match="not valid Python"):
        track(tmp_path / "a.py", tmp_path / "b.py")

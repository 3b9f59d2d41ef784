"""Programs with one defect each: ``check`` names it at its line, and finds no error once it is mended.

A few of them here; all with ``BOWERBIRD_CORPUS=all`` (minutes) or, as a table, with ``make defects``.
"""

import os
from pathlib import Path

import pytest
from corpus import Case, Pair, cases, clean, pairs

from bowerbird.reading.check import check
from bowerbird.reading.running.launch import Child
from bowerbird.reading.source import open_source

ALL = os.environ.get("BOWERBIRD_CORPUS") == "all"
BROKEN = [
    "G06_hinge_margin_on_wrong_side",
    "V02_std_from_logvar_without_half",
    "T02_decoder_without_look_ahead_mask",
    "R03_batch_first_missing",
    "L02_gradients_cleared_before_the_step",
]
MENDED = ["G06_hinge_margin_on_wrong_side", "V02_std_from_logvar_without_half"]
CLEAN = ["minimax_as_published"]
"""What is checked without BOWERBIRD_CORPUS: about 15 CPU seconds."""


def chosen(names: list[str]) -> list[Case]:
    return [case for case in cases() if ALL or case.name in names]


@pytest.mark.parametrize("case", chosen(BROKEN), ids=lambda case: case.name)
def test_defect_is_named_at_its_line(case: Case, child: Child):
    findings = check(case.broken, child=child).findings
    assert case.named_by(findings), [(f.rule, f.severity, f.line) for f in findings if f.severity != "ok"]


@pytest.mark.parametrize("case", chosen(MENDED), ids=lambda case: case.name)
def test_mended_program_has_no_error(case: Case, child: Child):
    assert check(case.mended, child=child).errors == []


@pytest.mark.parametrize("path", [path for path in clean() if ALL or path.stem in CLEAN], ids=lambda path: path.stem)
def test_clean_program_has_no_error(path: Path, child: Child):
    assert check(path, child=child).errors == []


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_case_says_what_is_there(case: Case):
    source, mended = open_source(case.broken), open_source(case.mended)
    lines = source.texts[source.main].splitlines()
    assert all(1 <= line <= len(lines) for line in case.also)
    assert case.text in lines[case.line - 1]
    assert source.texts[source.main] != mended.texts[mended.main]


def test_corpus_covers_the_catalogue():
    known = cases()
    assert len({case.rules[0] for case in known}) >= 60
    assert sum(case.silent for case in known) > len(known) / 2
    assert {"gan", "vae", "transformer", "diffusion", "recurrent"} <= {case.family for case in known}


def test_pairs_are_half_behavioural():
    known: list[Pair] = pairs()
    changed = [pair for pair in known if pair.behavioural]
    assert len(known) >= 24 and 2 * len(changed) == len(known)
    assert all(bool(pair.what) == pair.behavioural for pair in known)
    assert all(pair.before.read_text() != pair.after.read_text() for pair in known)

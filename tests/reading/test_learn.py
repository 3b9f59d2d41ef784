"""Learning paths and exercises: complete in two languages, true to our code, and checked by running."""

import ast
import dataclasses
import importlib
import json
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import bowerbird
from bowerbird import cli, registry
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Options
from bowerbird.reading.explain import cards
from bowerbird.reading.learn import learning, pages
from bowerbird.reading.learn.exercise import exercise, exercise_of, exercises
from bowerbird.reading.learn.running import Verdict, check_answers
from bowerbird.reading.learn.topic import Topic, topics

ROOT = Path(__file__).parents[2]
SOURCE = Path(bowerbird.__file__).parent
HAN = re.compile(r"[\u4e00-\u9fff]")

HOSTILE = {
    "syntax": ("def kl(mu, logvar)\n    return 0\n", "Line 1 ended with SyntaxError"),
    "raises": ("def kl(mu, logvar):\n    return 1 / 0\n", "Line 2 ended with ZeroDivisionError"),
    "missing": ("x = 1\n", "no attribute 'kl'"),
    "exits": ("import sys\nsys.exit(0)\n", "Line 2 ended with SystemExit"),
    "dies": ("import os\nos._exit(0)\n", "It was stopped"),
    "writes": ("open('/tmp/bowerbird-was-here', 'w')\n", "Line 1 ended with Refused"),
    "forks": ("import os\nos.fork()\n", "Line 2 ended with Refused"),
    "takes": ("held = bytearray(2**35)\n", "Line 1 ended with MemoryError"),
}


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    """Every starter, every solution and every hostile answer, in one child that loads torch once."""
    answers = {f"starter {one.id}": (one, one.starter()) for one in exercises().values()}
    answers |= {f"solution {one.id}": (one, one.solution("zh")) for one in exercises().values()}
    answers |= {name: (exercise("gaussian-kl"), text) for name, (text, _) in HOSTILE.items()}
    return dict(zip(answers, check_answers(list(answers.values())), strict=True))


@pytest.mark.parametrize("name", exercises())
def test_a_starter_fails_and_its_solution_passes(name: str, verdicts: dict[str, Verdict]) -> None:
    starter, solution = verdicts[f"starter {name}"], verdicts[f"solution {name}"]
    assert solution.passed, [seen.en for seen in solution.wrong]
    assert not starter.passed
    assert len(starter.observations) == len(solution.observations), [seen.en for seen in starter.wrong]
    for seen in starter.observations:
        assert HAN.search(seen.zh) and not HAN.search(seen.en)


@pytest.mark.parametrize("name", HOSTILE)
def test_an_answer_that_misbehaves_is_told_so(name: str, verdicts: dict[str, Verdict]) -> None:
    assert not verdicts[name].passed
    assert HOSTILE[name][1] in verdicts[name].wrong[0].en
    assert not Path("/tmp/bowerbird-was-here").exists()


def test_each_exercise_belongs_to_a_topic_and_says_everything_twice() -> None:
    assert len(exercises()) >= 14
    assert {one.topic for one in exercises().values()} == set(topics())
    for one in exercises().values():
        for english, chinese in ((one.titles, one.titles), (one.tasks, one.tasks), (one.hints, one.hints)):
            assert not HAN.search(english["en"]) and HAN.search(chinese["zh"]), one.id
        assert max(map(len, one.starter("zh").splitlines())) <= 120
        ast.parse(one.starter_code), ast.parse(one.solution_code)


# ---------------------------------------------------------------------------------------------------- the topics


@cache
def names_in(file: str) -> set[str]:
    """Functions, classes, methods and constants that one of our files defines."""
    found: set[str] = set()
    for node in ast.parse((SOURCE / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            found |= {target.id} if isinstance(target, ast.Name) else set()
    return found


@pytest.mark.parametrize("found", topics().values(), ids=topics())
def test_a_topic_names_what_exists(found: Topic) -> None:
    referred = [tuple(place.split(":")) for equation in found.equations for place in equation.ours]
    referred += [(step.file, name) for step in found.steps for name in step.names]
    assert [(file, name) for file, name in referred if name not in names_in(file)] == []
    assert [id for id in found.cards if id not in {card.id for card in cards.all()}] == []
    assert set(found.next) <= set(topics()) and found.id not in found.next
    assert found.sources and found.equations
    assert all(not s.reference.arxiv or re.fullmatch(r"\d{4}\.\d{4,5}", s.reference.arxiv) for s in found.sources)


@pytest.mark.parametrize("found", [t for t in topics().values() if t.experiment], ids=lambda found: found.id)
def test_the_commands_of_an_experiment_are_commands(found: Topic) -> None:
    assert found.experiment is not None
    for command in found.experiment.commands:
        program, *words = shlex.split(command)
        n = 2 if words[0] == "data" else 1
        assert program == "bowerbird"
        known = _options() if words[0] in ("sample", "measure", "chat") else ()
        own = [i for i, word in enumerate(words) if word.removeprefix("--").replace("-", "_") in known]
        left = [word for i, word in enumerate(words) if i not in own and i - 1 not in own]
        cli.COMMANDS[" ".join(words[:n])].parse(left[n:], command)
    for words in (found.experiment.words["en"], found.experiment.words["zh"]):
        for flag in re.findall(r"`(--[\w.-]+)", words):
            assert flag.lstrip("-").replace("no-", "").replace("-", "_").split(".")[-1] in _fields(), flag


@cache
def _options() -> set[str]:
    """Sampling options of all families: which of them a run has is known only where the run is."""
    files = [path.stem for path in (SOURCE / "models").glob("*.py") if path.stem in registry.families.names()]
    modules = [importlib.import_module(f"bowerbird.models.{name}") for name in files]
    kinds = [kind for module in modules for kind in vars(module).values() if isinstance(kind, type)]
    return {field.name for kind in kinds if issubclass(kind, Options) for field in dataclasses.fields(kind)}


@cache
def _fields() -> str:
    return "".join(
        path.read_text(encoding="utf-8") for folder in ("models", "cli") for path in (SOURCE / folder).glob("*.py")
    ) + (SOURCE / "config" / "fields.py").read_text(encoding="utf-8")


def test_every_topic_is_whole_in_both_languages() -> None:
    for found in topics().values():
        for form in (pages.Form("en", latex=False), pages.Form("en", latex=True, sources="src")):
            text = pages.page(found, form).replace("中文版", "")
            assert not HAN.search(text), HAN.search(text)
        chinese = pages.page(found, pages.Form("zh", latex=False))
        assert len(HAN.findall(chinese)) > 400, found.id


def test_a_recipe_s_promise_is_read_from_the_recipe() -> None:
    assert pages.promised("shakespeare") == ["`nll_per_token` ≤ 1.7 (split val+test, measured 1.503)"]
    assert pages.promised("gan") == []


def test_the_pages_of_the_documentation_are_not_stale() -> None:
    assert pages.stale(ROOT / "docs" / "learn") == [], "run: python -m bowerbird.reading.learn.pages docs/learn"


# ------------------------------------------------------------------------------------------------------- the verb


def test_the_command_line_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["learn"]) == 0
    listed = capsys.readouterr().out
    assert all(id in listed for id in (*topics(), *exercises()))
    assert cli.main(["learn", "vae", "--lang", "zh"]) == 0
    assert "变分自编码器" in capsys.readouterr().out
    assert cli.main(["learn", "vae", "--json"]) == 0
    assert "ELBO" in json.loads(capsys.readouterr().out)["text"]
    assert cli.main(["learn", "gann"]) == 2
    assert "did you mean 'gan'" in capsys.readouterr().err
    assert cli.main(["learn", "vae", "--exercise", "nucleus"]) == 2
    assert "belongs to the topic transformer" in capsys.readouterr().err


def test_the_command_line_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verdicts: dict[str, Verdict]
) -> None:
    monkeypatch.chdir(tmp_path)
    ready = {one.id: verdicts[f"starter {one.id}"] for one in exercises().values()}
    monkeypatch.setattr(learning, "check_answer", lambda found, source: ready[found.id])
    assert cli.main(["learn", "gan", "--exercise", "mend-the-generator-step"]) == 0
    file = capsys.readouterr().out.strip()
    assert cli.main(["learn", "gan", "--exercise", "mend-the-generator-step"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert cli.main(["learn", "check", file]) == 1
    said = capsys.readouterr().out
    assert said.startswith("Not yet: 3 of 4") and "Hint" not in said
    assert cli.main(["learn", "check", file, "--hint", "--lang", "zh"]) == 1
    assert "提示：" in capsys.readouterr().out
    assert cli.main(["learn", "check", file, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False
    ready["mend-the-generator-step"] = verdicts["solution mend-the-generator-step"]
    assert cli.main(["learn", "check", file]) == 0
    assert capsys.readouterr().out.startswith("Passed: all 4")


def test_a_file_that_names_no_exercise_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x = 1\n")
    with pytest.raises(BowerbirdError, match="names no exercise"):
        exercise_of(tmp_path / "mine.py")
    with pytest.raises(BowerbirdError, match="There is no file"):
        exercise_of(tmp_path / "nothing.py")
    (tmp_path / "odd.py").write_text("# bowerbird exercise: gausian-kl\n")
    with pytest.raises(BowerbirdError, match="did you mean 'gaussian-kl'"):
        exercise_of(tmp_path / "odd.py")


def test_learning_loads_no_torch() -> None:
    script = "import sys, bowerbird; assert 'ELBO' in bowerbird.learn('vae'); print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"

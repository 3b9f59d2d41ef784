"""A reading says nothing that no fact holds, cites no line that is not so, and is complete in both languages.

The programs run once each, in one warm child; both languages are written from the same study.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import bowerbird
from bowerbird.errors import BowerbirdError
from bowerbird.reading.explain import cards, families, glossary, layers, pages, perturb
from bowerbird.reading.explain import text as wordings
from bowerbird.reading.explain.read import studied, write
from bowerbird.reading.explain.reading import (
    Advice,
    Code,
    Figure,
    Formula,
    Output,
    Paragraph,
    Picture,
    Reading,
    Spark,
    Told,
)
from bowerbird.reading.explain.recipes import driven
from bowerbird.reading.explain.show.render import coloured, html, markdown, terminal
from bowerbird.reading.explain.steps.advice import remedies
from bowerbird.reading.explain.study import Study
from bowerbird.reading.explain.telling import told
from bowerbird.reading.explain.text import Ref, made, number
from bowerbird.reading.explain.writer import SENTENCES
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.rules import all_rules
from bowerbird.reading.running.launch import Child
from bowerbird.reading.tutor.endpoint import Endpoint

HERE = Path(__file__).parent
FRAGMENT = '''
# 生成器和判别器，来自教程
class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(100, 64), nn.ReLU(), nn.Linear(64, 784), nn.Tanh())
    def forward(self, z):
        return self.net(z).view(-1, 1, 28, 28)

D = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1), nn.Sigmoid()).cuda()
G = Generator().cuda()
opt_G = torch.optim.Adam(G.parameters(), lr=2e-4)
opt_D = torch.optim.Adam(D.parameters(), lr=2e-4)
bce = nn.BCELoss()
for imgs, _ in dataloader:
    imgs = imgs.cuda()
    z = torch.randn(imgs.size(0), 100).cuda()
    fake = G(z)
    # 训练判别器
    ones, zeros = torch.ones(imgs.size(0), 1).cuda(), torch.zeros(imgs.size(0), 1).cuda()
    loss_D = bce(D(imgs), ones) + bce(D(fake.detach()), zeros)
    opt_D.zero_grad(); loss_D.backward(); opt_D.step()
    loss_G = bce(D(fake), ones)
    opt_G.zero_grad(); loss_G.backward(); opt_G.step()
plt.imshow(fake[0, 0].detach().cpu().numpy()); plt.show()
'''  # fmt: skip
NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "source": ["# VAE"]},
        {"cell_type": "code", "source": "%matplotlib inline\nimport torch\nfrom torch import nn\nlr = 1e-3"},
        {"cell_type": "code", "source": [
            "net = nn.Linear(4, 1)\n", "optimizer = torch.optim.SGD(net.parameters(), lr=lr)\n",
            "for step in range(5):\n",
            "    x = torch.randn(8, 4)\n", "    loss = ((net(x) - x.sum(1, keepdim=True)) ** 2).mean()\n",
            "    optimizer.zero_grad()\n", "    loss.backward()\n", "    optimizer.step()\n",
        ]},
    ]
}  # fmt: skip


@dataclass
class Both:
    """A study and its readings."""

    study: Study
    en: Reading
    zh: Reading

    def __iter__(self) -> Iterator[Reading]:
        return iter((self.en, self.zh))


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory, child: Child) -> dict[str, Both]:
    folder = tmp_path_factory.mktemp("programs")
    (folder / "fragment.py").write_text(FRAGMENT, encoding="utf-8")
    (folder / "small.ipynb").write_text(json.dumps(NOTEBOOK), encoding="utf-8")
    (folder / "package").mkdir()
    (folder / "package" / "nets.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.fc = nn.Linear(3, 1)\n\n    def forward(self, x):\n        return x + self.fc(x)\n"
    )
    (folder / "package" / "train.py").write_text(
        "import torch\nfrom nets import Net\n\nWIDTH = 3\nnet = Net()\n"
        "opt = torch.optim.Adam(net.parameters(), lr=0.01)\n"
        "for i in range(3):\n    loss = net(torch.randn(4, WIDTH)).pow(2).mean()\n    loss.backward()\n    opt.step()\n"
        "    opt.zero_grad()\n    print(i, loss.item())\n"
    )
    targets: dict[str, Path | str] = {
        "vae": HERE / "clean" / "beta_vae_both_terms_averaged.py", "gan": folder / "fragment.py", "recipe": "gan",
        "gpt": HERE / "bases" / "documented.py", "ddpm": HERE / "bases" / "ddpm_with_ema.py",
        "notebook": folder / "small.ipynb", "folder": folder / "package",
    }  # fmt: skip
    found = {}
    for key, target in targets.items():
        measure, steps = (2, 3) if key == "folder" else (0, 2)
        with studied(target, measure=measure, steps=steps, seconds=30.0, child=child) as study:
            found[key] = Both(study, write(study, "en"), write(study, "zh"))
    return found


KEYS = ("vae", "gan", "recipe", "gpt", "ddpm", "notebook", "folder")


# ------------------------------------------------------------------------------------------------------- traceability


def figures(value: object) -> set[float]:
    """Every number in a fact's value: as such, in its words, and how many entries its lists have."""
    match value:
        case bool() | None:
            return set()
        case int() | float():
            return {float(value)}
        case str():
            return {float(n) for n in re.findall(r"\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", value)}
        case list() | tuple():
            return {n for entry in value for n in figures(entry)}
        case dict():
            return {n for pair in value.items() for entry in pair for n in figures(entry)}
    return set()


def holds(fact: Fact, ref: Ref) -> bool:
    """Whether a fact holds what is printed of it."""
    words = (
        json.dumps([fact.subject, fact.value, Path(fact.file).name], ensure_ascii=False)
        .replace('\\"', '"')
        .replace("`", "'")
    )
    if ref.kind == "name":
        return all(
            token in words for token in re.findall(r"\w+", ref.shown.rstrip("…"))[:-1] or re.findall(r"\w+", ref.shown)
        )
    known = figures(fact.value) | {float(fact.line or 0)}
    unit = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    for match in re.finditer(r"(\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)( [kMGT]\b| %)?", ref.shown):
        printed = float(match[1].replace(",", ""))
        printed *= unit.get((match[2] or "").strip(), 1.0) * (0.01 if match[2] == " %" else 1.0)
        if not any(abs(abs(n) - printed) <= 6e-3 * abs(printed) + 1e-12 for n in known):
            return False
    return True


def quotes(fact: Fact, ref: Ref, lang: str) -> bool:
    """Whether quoted words are a fact's own: in a translation at least every number, in English every word."""
    words = json.dumps([fact.id, fact.subject, fact.value], ensure_ascii=False).replace('\\"', '"')
    if ref.shown.rstrip("…") in " ".join(words.replace("\\n", " ").split()):
        return True
    known = figures(fact.value) | figures(fact.subject) | {float(fact.line or 0), float(fact.id[1:])}
    numbers = re.findall(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?", ref.shown.rstrip("…").replace(",", ""))
    if not all(any(abs(n - float(m)) <= 6e-3 * abs(n) for n in known) for m in numbers):
        return False
    ours = {"note", "warning", "error"}
    tokens = re.findall(r"[A-Za-z_]{3,}", ref.shown.rstrip("…"))
    return lang == "zh" or all(token in words or token in ours for token in (tokens[:-1] or tokens))


@pytest.mark.parametrize("key", KEYS)
def test_every_number_and_name_traces_to_a_fact_that_holds_it(readings: dict[str, Both], key: str) -> None:
    for reading in readings[key]:
        n = 0
        for text in reading.texts():
            words, covered = str(text), [False] * len(str(text))
            for start, end, fact in text.spans():
                assert reading.facts.get(fact) is not None
                covered[start:end] = [True] * (end - start)
            loose = [m[0] for m in re.finditer(r"\d+|`[^`]*`", words) if not all(covered[m.start() : m.end()])]
            assert not loose, f"{loose} in {words!r}"
            for ref in text.refs:
                fact = reading.facts.get(ref.fact)
                assert fact is not None
                if ref.kind in ("number", "name"):
                    n += 1
                    assert holds(fact, ref), f"{ref.shown!r} is not in {fact}"
                if ref.kind == "quote":
                    assert quotes(fact, ref, reading.lang), f"{ref.shown!r} is not said by {fact}"
        assert n > 30


@pytest.mark.parametrize("key", KEYS)
def test_what_is_shown_beside_the_text_is_the_programs_own(readings: dict[str, Both], key: str) -> None:
    """Output, curves and pictures carry no reference: they are compared with their facts."""
    both = readings[key]
    for block in both.en.blocks:
        fact = both.en.facts.get(block.fact) if isinstance(block, Output | Spark | Picture) else None
        if isinstance(block, Output):
            assert fact is not None
            assert all(line in fact["text"] for line in block.words.splitlines() if line != "⋮")
        if isinstance(block, Spark):
            assert fact is not None and list(block.values) == fact["values"]
            backwards = [f["loss"] for f in both.study.facts.of("event.backward")]
            assert all(value in backwards for value in block.values)
        if isinstance(block, Picture):
            assert fact is not None and len(block.data) == fact["bytes"]


@pytest.mark.parametrize("key", KEYS)
def test_every_cited_line_is_there_and_every_excerpt_is_as_it_stands(readings: dict[str, Both], key: str) -> None:
    both = readings[key]
    source = both.study.source
    for reading in both:
        for block in reading.blocks:
            if isinstance(block, Code):
                assert list(block.lines) == source.texts[block.file].splitlines()[block.first - 1 : block.last]
                assert all(block.first <= line <= block.last for line, _ in block.marked)
        for text in reading.texts():
            for ref in (r for r in text.refs if r.kind == "line"):
                fact = reading.facts.get(ref.fact)
                assert fact is not None
                assert ref.value in figures(fact.value) | {float(fact.line or 1)}
                if ref.file in source.texts:
                    assert 1 <= ref.value <= len(source.texts[ref.file].splitlines())
                    assert both.study.short(ref.file) in ref.shown or ref.file == both.study.file


def test_what_is_quoted_of_a_line_stands_there(readings: dict[str, Both]) -> None:
    quoted = 0
    for both in readings.values():
        for fact in both.study.facts.of("source.line"):
            assert both.study.text(fact.file, fact.line or 0).strip() == fact["text"]
            quoted += 1
        for fact in both.study.facts.of("loss.identified"):
            if fact["expression"]:
                assert fact["expression"].split(".")[0] in both.study.text(fact.file, fact.line or 0)
                quoted += 1
            for file, line in [*fact["at"], *fact["pattern_lines"]]:
                assert re.search(r"\(|log|\*\*", both.study.text(file, line)), "a loss is computed at this line"
    assert quoted > 10


def test_a_template_cannot_print_what_no_fact_holds() -> None:
    store = FactStore()
    fact = store.add("observed", "module.parameters", "net", 1)
    assert str(made("{n:parameter}", "en", {"n": number(fact)})) == "1 parameter"
    for words in ("It has 3 parameters.", "`net` is here."):
        with pytest.raises(ValueError, match="no number and no name"):
            made(words, "en", {})


# ------------------------------------------------------------------------------------------------------- completeness


@pytest.mark.parametrize("key", KEYS)
def test_a_reading_has_seven_steps_in_both_languages(readings: dict[str, Both], key: str) -> None:
    both = readings[key]
    assert both.en.ran, both.study.run.why_not
    for reading in both:
        assert [step.number for step in reading.steps] == [1, 2, 3, 4, 5, 6, 7]
        assert all(step.blocks for step in reading.steps)
    assert [len(s.blocks) for s in both.en.steps] == [len(s.blocks) for s in both.zh.steps]
    chinese = "".join(str(t) for t in both.zh.texts())
    assert len(re.findall(r"[\u4e00-\u9fff]", chinese)) > 200
    english = "".join("".join(p for p in t.parts if isinstance(p, str)) for t in both.en.texts())
    assert not re.search(r"[\u4e00-\u9fff]", english)


@pytest.mark.parametrize(
    ("key", "family"),
    [("vae", "vae"), ("gan", "gan"), ("recipe", "gan"), ("gpt", "transformer"), ("ddpm", "diffusion")],
)
def test_the_family_is_known(readings: dict[str, Both], key: str, family: str) -> None:
    fact = readings[key].study.facts.first("program.family")
    assert fact is not None and fact.subject == family


def formulas(reading: Reading) -> list[str]:
    return [str(b.text) for b in reading.steps[2].blocks if isinstance(b, Formula)]


def test_a_detached_sample_is_still_named_in_the_equation(readings: dict[str, Both]) -> None:
    """The critic's two terms judge different things, also where no gradient goes back to the generator."""
    critic = next(f for f in readings["gan"].study.facts.of("loss.identified") if f["rule"] == "sum")
    assert critic["equation"].count("netG(") + critic["equation"].count("G(") >= 1, critic["equation"]


def test_a_loss_that_is_written_out_is_an_equation(tmp_path: Path) -> None:
    (tmp_path / "wgan.py").write_text(
        "import torch\nfrom torch import nn\nmaker = nn.Linear(4, 8)\ncritic = nn.Linear(8, 1)\n"
        "opt = torch.optim.Adam(critic.parameters(), lr=0.001)\nlambda_gp = 10\n\n\n"
        "def slope(real):\n    real.requires_grad_(True)\n"
        "    (g,) = torch.autograd.grad(critic(real).sum(), real, create_graph=True)\n"
        "    return ((g.norm(2, dim=1) - 1) ** 2).mean()\n\n\n"
        "for _ in range(3):\n    fake = maker(torch.randn(5, 4)).detach()\n    real = torch.rand(5, 8)\n"
        "    judged = critic(fake)\n    gp = slope(real)\n"
        "    loss = -torch.mean(critic(real)) + judged.mean() + lambda_gp * gp\n"
        "    opt.zero_grad()\n    loss.backward()\n    opt.step()\n"
    )
    reading = bowerbird.read(tmp_path / "wgan.py", measure=0)
    assert "−E[critic(x)] + E[critic(maker(z))] + lambda_gp · penalty" in formulas(reading)


def test_a_loss_is_derived_through_modules_and_confirmed_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "vq.py").write_text(
        "import torch\nimport torch.nn.functional as F\nfrom torch import nn\ncommitment_cost = 0.25\n\n\n"
        "class VectorQuantizer(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.codebook = nn.Embedding(8, 3)\n        self.commitment_cost = commitment_cost\n\n"
        "    def forward(self, z):\n        e = self.codebook(torch.cdist(z, self.codebook.weight).argmin(1))\n"
        "        loss = F.mse_loss(e, z.detach()) + self.commitment_cost * F.mse_loss(e.detach(), z)\n"
        "        return loss, z + (e - z).detach()\n\n\n"
        "class Model(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.encode, self.vq, self.decode = nn.Linear(6, 3), VectorQuantizer(), nn.Linear(3, 6)\n\n"
        "    def forward(self, x):\n        loss, z = self.vq(self.encode(x))\n"
        "        return loss, self.decode(z)\n\n"
        "\nmodel = Model()\nopt = torch.optim.Adam(model.parameters(), lr=0.001)\n"
        "for _ in range(3):\n    x = torch.rand(4, 6)\n    vq_loss, y = model(x)\n"
        "    loss = F.mse_loss(y, x) + vq_loss\n    opt.zero_grad()\n    loss.backward()\n    opt.step()\n"
    )
    reading = bowerbird.read(tmp_path / "vq.py", measure=0)
    codes, commitment = "E[(e − sg[z])²]", "commitment_cost · E[(sg[e] − z)²]"
    assert f"E[(model(x) − x)²] + {codes} + {commitment}" in formulas(reading)
    assert "z_q = z + sg[e − z], ∂z_q/∂z = 1" in [str(b.text) for b in reading.blocks if isinstance(b, Formula)]
    first = "\n".join(str(b.text) for b in reading.steps[0].blocks if isinstance(b, Paragraph))
    assert "VQ-VAE" in first and "2 of 2 modules" in first
    assert any("Weight of the commitment loss" in str(text) for text in reading.texts())


def test_a_chinese_reading_tells_findings_in_chinese(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "import torch\nfrom torch import nn\nnet = nn.Linear(4, 1)\nopt = torch.optim.SGD(net.parameters(), lr=0.1)\n"
        "for _ in range(3):\n    loss = net(torch.randn(8, 4)).pow(2).mean()\n    loss.backward()\n"
        "    opt.zero_grad()\n    opt.step()\n"
    )
    reading = bowerbird.read(tmp_path / "late.py", measure=0, lang="zh")
    told = next(b for b in reading.steps[1].blocks if isinstance(b, Advice) and "L02" in str(b.title))
    assert [re.match(r"[\u4e00-\u9fff]", str(t)) is not None for t in told.body] == [True] * len(told.body)
    assert {rule for rule in all_rules() if rule not in remedies()} <= {"X09"}


def test_losses_are_identified_and_written_as_equations(readings: dict[str, Both]) -> None:
    gan = formulas(readings["gan"].en)
    assert any("log D(x)" in f or "log D(" in f for f in gan), gan
    rules = [f["rule"] for f in readings["gan"].study.facts.of("loss.identified")]
    assert rules == ["sum", "last"], "the critic's number is the sum of two, the generator's is one"
    assert any("−E log σ(D(G(z)))" == f for f in formulas(readings["recipe"].en))
    assert any("penalty = γ/2" in f for f in formulas(readings["recipe"].en))
    assert formulas(readings["gpt"].en) == ["−E[log softmax(lm(x))_y]"]
    assert formulas(readings["ddpm"].en) == ["E[(model(x) − ε)²]"]
    assert any("KL" in f for f in formulas(readings["vae"].en)), formulas(readings["vae"].en)


def test_the_round_of_training_is_in_order(readings: dict[str, Both]) -> None:
    fact = readings["gan"].study.facts.first("training.round")
    assert fact is not None
    steps = [row["subject"] for row in fact["events"] if row["topic"] == "event.step"]
    assert steps == ["opt_D", "opt_G"] and fact["steps"] == {"opt_D": 1, "opt_G": 1}
    moves = {f.subject: f["moves"] for f in readings["recipe"].study.optimizers}
    assert moves == {"optimizers['D']": ["model.D"], "optimizers['G']": ["model.G"]}


def test_the_diagram_is_drawn_from_what_was_observed(readings: dict[str, Both]) -> None:
    figure = next(b for b in readings["gan"].en.steps[2].blocks if isinstance(b, Figure))
    arrows = {(a.source, a.target) for a in figure.diagram.arrows}
    assert {("net G", "net D"), ("opt opt_G", "net G"), ("opt opt_D", "net D")} <= arrows
    assert ("opt opt_D", "net G") not in arrows
    assert figure.diagram.svg().count("<rect") == len(figure.diagram.nodes)
    assert figure.diagram.mermaid().startswith("flowchart LR")


def test_costs_are_those_of_the_layers(readings: dict[str, Both]) -> None:
    study = readings["folder"].study
    fact = study.facts.first("block.cost", "net.fc")
    assert fact is not None and fact["operations"] == 2 * 4 * 3 * 1
    trees = study.facts.of("module.tree")
    assert [t["parameters"] for t in trees] == [4]


def test_a_setting_is_measured_by_running_again(readings: dict[str, Both]) -> None:
    changed = readings["folder"].study.facts.of("setting.changed")
    assert {f.subject for f in changed} >= {"lr"}
    fact = next(f for f in changed if f.subject == "lr")
    assert fact["is"] == "0.02" and fact["losses"][0]["first"][0] == fact["losses"][0]["first"][1]
    assert fact["losses"][0]["was"] != fact["losses"][0]["is"]


def test_fragments_name_their_stand_ins_and_the_output_is_the_programs_own(readings: dict[str, Both]) -> None:
    names = {s.name for s in readings["gan"].study.run.stand_ins}
    assert "CUDA" in names and any("dataloader" in name for name in names)
    outputs = [b for b in readings["folder"].en.steps[5].blocks if isinstance(b, Output)]
    assert outputs and len(outputs[0].words.splitlines()) == 3
    pictures = markdown(readings["recipe"].en)
    assert "samples.png" in pictures


def test_places_in_a_notebook_are_cells(readings: dict[str, Both]) -> None:
    text = markdown(readings["notebook"].en)
    assert "cell 3, line 7" in text and "第 3 个单元第 7 行" in markdown(readings["notebook"].zh)


# ------------------------------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize("key", KEYS)
def test_pages_hold_the_whole_reading(readings: dict[str, Both], key: str, tmp_path: Path) -> None:
    for reading in readings[key]:
        page, text = html(reading), markdown(reading, tmp_path / "pictures")
        for step in reading.steps:
            assert f"## {step.number}. {step.title}" in text and f'id="step{step.number}"' in page
        cited = {fact for t in reading.texts() for fact in t.facts}
        assert all(f'id="{fact}"' in page for fact in cited)
        assert not re.search(r'(?:src|href)="(?!#|data:|https://arxiv\.org)', page), (
            "a page needs nothing from elsewhere"
        )
        lines = terminal(reading, width=90)
        assert all(step.title in lines for step in reading.steps)
        assert json.loads(json.dumps(reading.to_json()))["steps"][6]["number"] == 7


def test_code_in_colour_keeps_every_character() -> None:
    for line in ("x = f(\"a # b\", 'c')  # <note>", "    return -0.5 * torch.sum(1 + logvar)", "'unfinished"):
        plain = re.sub(r"<[^>]+>", "", coloured(line))
        assert plain.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&#x27;", "'") == line


class Scripted(Endpoint):
    """An endpoint that makes two claims, of which one is a lie, and insists."""

    def __init__(self, fact: str) -> None:
        super().__init__("http://127.0.0.1:9/v1", "scripted")
        self.fact = fact

    def stream(self, *_: object, **__: object) -> Iterator[str]:  # type: ignore[override]
        claims = [
            {"is": "fact", "id": self.fact},
            {"is": "count", "module": "net", "type": "Linear", "n": 9000},
        ]
        yield json.dumps({"claims": claims})


def test_a_model_stands_beside_the_steps_with_its_score(readings: dict[str, Both]) -> None:
    both = readings["folder"]
    fact = both.study.facts.first("module.parameters", "net")
    assert fact is not None
    reading = told(both.study, both.en, Scripted(fact.id))
    assert reading.score is not None and (reading.score.verified, reading.score.total) == (1, 2)
    said = [b for b in reading.blocks if isinstance(b, Told)]
    assert sorted(b.status for b in said) == ["refuted", "verified"]
    assert "verified 1 of 2" in markdown(reading) and "verified 1 of 2" in html(reading)


def test_readings_of_our_families_are_of_what_they_are_now() -> None:
    folder = HERE.parents[1] / "docs" / "readings"
    assert pages.stale(folder) == [], "run: python -m bowerbird.reading.explain.pages docs/readings"


# --------------------------------------------------------------------------------------------------------- knowledge


def test_what_is_known_of_settings_is_complete() -> None:
    for entry in glossary.entries():
        assert all(set(words) == {"en", "zh"} for words in (entry.meaning, entry.why, entry.change))
        assert {card.id for card in cards.all()} >= set(entry.cards)
    for word, identity in (
        ("learning_rate", "lr"), ("min_lr", "min-lr"), ("b1", "beta1"), ("latent_dim", "latent"),
        ("n_critic", "n-critic"), ("lambda_gp", "penalty-weight"), ("noise_steps", "timesteps"),
        ("beta_start", "noise-betas"), ("n_embd", "width"),
        ("args.batch_size", "batch"), ("grad_clip", "clip-norm"), ("kl_weight", "kl-weight"),
    ):  # fmt: skip
        found = glossary.find(word)
        assert found is not None and found.id == identity, word


def test_every_sentence_has_its_places_in_both_languages_and_is_said() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in Path(wordings.__file__).parent.rglob("*.py"))
    for key, words in (SENTENCES | wordings.CLAUSES).items():
        en, zh = (re.findall(r"\{([\w.]*)", words[lang]) for lang in ("en", "zh"))
        assert sorted(en) == sorted(zh), key
    parts = {part for key in SENTENCES for part in [key.partition(".")[0]]}
    spoken = set(re.findall(r'"((?:' + "|".join(parts) + r")\.\w+)\"", code)) | {"short.why", "short.smaller"}
    made = set(re.findall(r'f"(\w+)\.\{', code)) | {"head"}  # keys that are put together
    assert {key for key in SENTENCES if key not in spoken and key.partition(".")[0] not in made} == set()


def test_families_point_at_cards_that_exist() -> None:
    known = {card.id for card in cards.all()}
    for family in families.families().values():
        assert {*family.training, *family.output} <= known and family.like in families.families(), family.id


def test_layers_are_told_apart() -> None:
    assert layers.known("Conv2d") and layers.known("ConvTranspose2d") and layers.known("Mystery") is None
    assert layers.residual("x = x + self.attn(x)") and not layers.residual("y = a + b")
    assert layers.residual("identity = x\nout = self.conv(x)\nout = self.norm(out)\ny = out + identity")
    assert not layers.residual("x = x + self.pe[:, : x.size(1)]"), "a table of positions is no function of x"
    assert layers.attention("s = q @ k.mT / d\ns = s.masked_fill(m, -1e9)\ny = F.softmax(s, -1) @ v")
    assert not layers.attention("q = q.softmax(-1)\nc = torch.einsum('bdn,ben->bde', k, v)\ny = c @ q"), "linear"


def test_a_change_that_fails_is_said() -> None:
    before, after = FactStore(), FactStore()
    after.add("observed", "run.exception", "RuntimeError", {"message": "shapes differ"}, line=3)
    assert perturb.compared(before, after)["failed"] == "RuntimeError: shapes differ"


def test_recipes_are_driven_and_other_names_are_not(tmp_path: Path) -> None:
    found = driven("vae")
    assert found is not None and found[1][0].endswith("vae.py") and "model.losses" in found[0].texts[found[0].main]
    assert driven("no-such-recipe") is None
    with pytest.raises(BowerbirdError, match="no file or folder"):
        bowerbird.read(tmp_path / "nothing.py")

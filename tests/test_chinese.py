"""The Chinese pages: level with the English ones, with Chinese punctuation and one term per concept."""

import re
from pathlib import Path

import pytest

from bowerbird import cli
from bowerbird.reading.explain.text import Ref, joined, made

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.zh-CN.md",
    *sorted(ROOT.glob("docs/learn/zh/*.md")),
    *sorted(ROOT.glob("docs/readings/*.zh.md")),
]
HAN = "[\u4e00-\u9fff]"
OTHER_TERMS = {
    "塌缩": "坍塌",
    "鉴别器": "判别器",
    "规程": "协议",
    "重建": "重构",
    "噪声表": "噪声调度",
    "隐编码": "隐变量",
}


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```|`[^`\n]*`", "``", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def code(page: Path) -> str:
    found = re.findall(r"^```.*?^```|`[^`\n]+`", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return "\n".join(re.sub(r" +#.*", "", line) for line in "\n".join(found).splitlines())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_punctuation_and_terms(page: Path) -> None:
    text = prose(page)
    assert re.findall(f".*{HAN}[,;:!?]\\s?{HAN}.*|.*{HAN}\\({HAN}.*", text) == []
    assert re.findall(f".*(?:{HAN}[A-Za-z0-9]|[A-Za-z0-9]{HAN}).*", text) == []
    assert [other for other in OTHER_TERMS if other in text] == []


def test_the_readme_runs_the_commands_of_the_english_one() -> None:
    english, chinese = (
        set(re.findall(r"bowerbird ([a-z]+(?: (?:list|get))?)", code(ROOT / name)))
        for name in ("README.md", "README.zh-CN.md")
    )
    assert english <= chinese <= set(cli.COMMANDS)


def test_the_readme_measures_what_the_english_one_does() -> None:
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
    figures = [sorted(set(re.findall(r"\d+\.\d+", text))) for text in (english, chinese)]
    assert figures[0] == figures[1]


def test_links_of_the_readme_are_chinese_or_say_that_they_are_english() -> None:
    links = re.findall(r"\]\(((?:docs/|CONTRIBUTING)[^)]*\.md[^)]*)\)(（英文）)?", prose(ROOT / "README.zh-CN.md"))
    assert len(links) > 15
    assert [target for target, said in links if bool(said) == ("/zh/" in target or ".zh.md" in target)] == []


def test_a_sentence_spaces_what_is_not_chinese() -> None:
    line, same = Ref("a.py 第 3 行", "F1", "line"), Ref("第 4 行", "F2", "line")
    assert str(made("在{l}求导", "zh", {"l": line})) == "在 a.py 第 3 行求导"
    assert str(made("在{l}求导", "zh", {"l": same})) == "在第 4 行求导"
    assert str(joined([same, Ref("net", "F3", "name"), Ref("7", "F4", "number")], "zh")) == "第 4 行、`net` 和 7"

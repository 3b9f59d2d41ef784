"""The server for editors and agents, through the package's own client: in this process, once over standard input."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bowerbird.errors import BowerbirdError
from later import later

mcp, ours = later("mcp"), later("bowerbird.reading.mcp")

FOLDER = Path(__file__).with_name("tutor")


class Report:
    def to_json(self) -> dict[str, Any]:
        return {"ran": True, "findings": [{"rule": "G05", "line": 56}]}


def _check(path: str) -> Report:
    if path == "nowhere.py":
        raise BowerbirdError("There is no file nowhere.py.")
    print("noise of the work")
    return Report()


def _ask(path: str, question: str) -> dict[str, Any]:
    return {"path": path, "question": question}


def _read(path: str, lang: str) -> str:
    return f"{path} in {lang}"


def verbs() -> Any:
    return ours.Verbs(_check, ask=_ask, read=_read, track=lambda a, b: {"behavioural_change": a != b, "changes": []})


def talk(verbs: Any, do: Callable[[Any], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with mcp.Client(ours.server(verbs, "1.2")) as client:
            return await do(client)

    return asyncio.run(main())


def call(name: str, **words: str) -> Any:
    return talk(verbs(), lambda client: client.call_tool(name, words))


def text_of(result: Any) -> Any:
    return json.loads(result.content[0].text)


def test_the_tools_are_the_verbs_and_only_those_that_exist() -> None:
    async def names(client: Any) -> list[str]:
        return sorted(tool.name for tool in (await client.list_tools()).tools)

    assert talk(verbs(), names) == ["ask", "check", "read", "track"]
    assert talk(ours.Verbs(check=_check), names) == ["check"]


def test_no_tool_takes_an_address_or_a_key() -> None:
    async def fields(client: Any) -> set[str]:
        return {field for tool in (await client.list_tools()).tools for field in tool.input_schema["properties"]}

    assert talk(verbs(), fields) == {"path", "question", "lang", "before", "after"}


def test_results_are_the_json_of_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert text_of(call("check", path="a.py")) == Report().to_json()
    assert text_of(call("ask", path="a.py", question="为什么？")) == {"path": "a.py", "question": "为什么？"}
    assert text_of(call("read", path="a.py", lang="zh")) == {"text": "a.py in zh"}
    assert text_of(call("track", before="a.py", after="b.py"))["behavioural_change"] is True
    printed = capsys.readouterr()
    assert printed.out == ""  # standard output is the protocol's
    assert "noise of the work" in printed.err


def test_errors_reach_the_client_as_their_sentence() -> None:
    result = call("check", path="nowhere.py")
    assert result.is_error
    assert "There is no file nowhere.py." in result.content[0].text


def test_the_command_serves_over_standard_input_and_output() -> None:
    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    program = mcp.StdioServerParameters(
        command=sys.executable, args=["-m", "bowerbird", "mcp"], env=environment, cwd=str(FOLDER)
    )

    async def main() -> Any:
        async with mcp.Client(program) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            answer = await client.call_tool("ask", {"path": "gan.py", "question": "What does `optimizer_D` update?"})
            missing = await client.call_tool("ask", {"path": "nowhere.py", "question": "Why?"})
            return names, answer, missing

    names, answer, missing = asyncio.run(main())
    assert "ask" in names
    assert json.loads(answer.content[0].text)["mode"] == "offline"
    assert "optimizer_D" in answer.content[0].text
    assert missing.is_error
    assert "nowhere.py" in missing.content[0].text

"""Requests that contradict themselves, or ask for what is not there: refused in a short sentence, never half obeyed."""

import base64
import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from asking import ask

from bowerbird import cli

LABEL = {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["upper"]}
SEED = {"name": "seed", "datatype": "INT64", "shape": [1], "data": [1]}


def said(address: str, path: str, body: dict[str, Any]) -> tuple[int, str]:
    status, answer, _ = ask(address, "POST", path, json.dumps(body).encode())
    error = json.loads(answer).get("error", "")
    return status, error if isinstance(error, str) else error["message"]


def names(address: str, path: str = "/v2/models/classes") -> list[str]:
    return [one["name"] for one in json.loads(ask(address, "GET", path)[1])["inputs"]]


def test_a_prompt_and_what_is_given_must_agree(address: str) -> None:
    asked = {"model": "classes", "prompt": "upper", "given": {"label": "lower"}}
    status, sentence = said(address, "/v1/images/generations", asked)
    assert status == 400 and "'given' says 'lower'" in sentence
    assert said(address, "/v1/images/generations", asked | {"given": {"label": "upper"}})[0] == 200


def test_metadata_list_only_what_a_run_takes(address: str) -> None:
    assert names(address, "/v2/models/music") == ["seed", "n"]
    assert names(address, "/v2/models/text") == ["seed", "n", "prompt"]
    signature = json.loads(ask(address, "GET", "/v1/models/music/versions/1/metadata")[1])
    assert "prompt" not in json.dumps(signature)
    status, sentence = said(address, "/v2/models/music/infer", {"inputs": [LABEL | {"name": "prompt"}]})
    assert status == 400 and "no input 'prompt'" in sentence


def test_a_translation_is_as_short_as_it_was_asked_to_be(address: str) -> None:
    body = json.dumps({"model": "pairs", "prompt": "one 1", "max_tokens": 2, "seed": 0}).encode()
    answer = json.loads(ask(address, "POST", "/v1/completions", body)[1])
    assert answer["usage"]["completion_tokens"] <= 2
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"inputs": [LABEL, LABEL | {"data": ["lower"]}]}, "'label' is there twice"),
        ({"inputs": [LABEL], "outputs": [{"name": "x", "parameters": {"classification": 3}}]}, "'classification'"),
        ({"outputs": [{"name": "x", "parameters": {"shared_memory_region": "r"}}]}, "'shared_memory_region'"),
        ({"inputs": [SEED], "parameters": {"seed": 2}}, "an input and a parameter"),
        ({"inputs": [SEED | {"name": "n", "data": [0]}]}, "n = 0"),
        ({"inputs": [SEED | {"datatype": "UINT8"}]}, "'seed' must be INT64"),
        ({"inputs": [LABEL | {"datatype": "FP32", "data": [1.0]}]}, "'label' must be BYTES or INT64"),
    ],
)
def test_a_request_for_inference_means_one_thing(address: str, body: dict[str, Any], sentence: str) -> None:
    status, answer = said(address, "/v2/models/classes/infer", body)
    assert status == 400 and sentence in answer


def test_tensorflow_serving_sends_strings_in_base64_and_names_the_version(address: str) -> None:
    label = {"label": {"b64": base64.b64encode(b"upper").decode()}}
    plain = ask(
        address,
        "POST",
        "/v1/models/classes:predict",
        json.dumps({"instances": [{"label": "upper"}], "seed": 3}).encode(),
    )
    where = "/v1/models/classes/versions/1:predict"
    assert ask(address, "POST", where, json.dumps({"instances": [label], "seed": 3}).encode())[1] == plain[1]
    assert said(address, where.replace("1:", "2:"), {"instances": [label]})[0] == 404
    assert "not UTF-8 in base64" in said(address, where, {"instances": [{"label": {"b64": "!"}}]})[1]


@pytest.mark.parametrize("name", ["a" * 100_000, "digits\n", "\x00\x1b[31m", "\ud800"])
def test_no_answer_repeats_at_length_what_was_sent(address: str, name: str) -> None:
    for path, body in (
        ("/v1/completions", {"model": name, "prompt": "a"}),
        ("/v1/images/generations", {"model": "classes", "prompt": "", name: 1}),
        ("/v2/models/classes/infer", {name: 1}),
        ("/v2/models/classes/infer", {"inputs": [LABEL | {"data": [name]}]}),
        ("/v1/models/classes:predict", {"instances": [{name: 1}]}),
    ):
        status, sentence = said(address, path, body)
        assert status in (400, 404) and len(sentence) < 400 and sentence.isprintable(), sentence


def test_sentences_know_no_command_line(address: str) -> None:
    status, sentence = said(address, "/v1/images/generations", {"model": "edits", "prompt": "", "given": {"a": ""}})
    assert status == 400 and "--" not in sentence
    status, sentence = said(address, "/v1/completions", {"model": "pairs", "prompt": " "})
    assert status == 400 and sentence.endswith("say what, with 'prompt'.")


def test_a_probe_without_a_host_is_told_of_health_alone(address: str) -> None:
    for path, status in ((b"/health", b"200"), (b"/v1/models", b"421")):
        with socket.create_connection((urlsplit(address).hostname, urlsplit(address).port), timeout=20) as line:
            line.sendall(b"GET " + path + b" HTTP/1.0\r\n\r\n")
            assert line.recv(65536).split(b" ")[1] == status


def test_a_port_that_cannot_be_had_is_said(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port, sentence in ((99999, "is no port"), (taken.getsockname()[1], "Cannot listen at 127.0.0.1:")):
            assert cli.main(["serve", str(runs["classes"]), "--port", str(port)]) == 2
            told = capsys.readouterr().err
            assert sentence in told.replace("\n", " ") and "Traceback" not in told


def test_a_number_within_another_names_no_class() -> None:
    from bowerbird.serve.words import _matches

    assert [_matches(prompt, ("1", "3")) for prompt in ("-1", "1.5", "2.1", "13", "+3")] == [[]] * 5
    assert [_matches(prompt, ("1", "3")) for prompt in ("a 1.", "3", "digit 3!")] == [["1"], ["3"], ["3"]]


def test_the_configuration_says_how_many_samples_are_drawn_together(address: str) -> None:
    for run, together in (("classes", "256"), ("text", "32")):
        told = json.loads(ask(address, "GET", f"/v2/models/{run}/config")[1])
        assert told["parameters"]["samples_together"]["string_value"] == together and "dynamic_batching" not in told

"""Clients that people have, unchanged: openai, tritonclient.http, and plain HTTP."""

import base64
import io
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bowerbird import api
from bowerbird.provenance.verifying import verify
from later import later

openai, tritonhttp = later("openai"), later("tritonclient.http")

KEY = "a-key"


@pytest.fixture(scope="module")
def client(address: str) -> "openai.OpenAI":
    return openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def triton(address: str) -> Any:
    with tritonhttp.InferenceServerClient(address.removeprefix("http://")) as client:
        yield client


def headers() -> dict[str, str]:
    """Anew each time: tritonclient writes into them."""
    return {"authorization": f"Bearer {KEY}"}


def post(address: str, path: str, body: Any) -> tuple[int, Any]:
    request = urllib.request.Request(
        address + path, json.dumps(body).encode(), {"content-type": "application/json", **headers()}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


# ------------------------------------------------------------------------------------------------------- openai


def test_models_are_listed(client: "openai.OpenAI") -> None:
    assert {model.id for model in client.models.list()} == {"classes", "edits", "text", "chat", "pairs", "music"}
    assert client.models.retrieve("text").owned_by == "bowerbird"
    with pytest.raises(openai.NotFoundError, match="There is no model 'nothing' here"):
        client.models.retrieve("nothing")


def test_a_prompt_names_a_class_and_the_picture_is_labelled(
    client: "openai.OpenAI", runs: dict[str, Path], tmp_path: Path
) -> None:
    answer = client.images.generate(
        model="classes", prompt="an upper one", n=2, size="auto", extra_body={"seed": 3, "options": {"steps": 2}}
    )
    files = [base64.b64decode(one.b64_json or "") for one in answer.data or []]
    alone = api.generate(runs["classes"], 2, seed=3, given={"label": "upper"}, options={"steps": 2})
    assert [pixels(data).tolist() for data in files] == [x[..., 0].tolist() for x in alone]
    assert (answer.data or [])[0].revised_prompt == "label=upper"
    (tmp_path / "a.png").write_bytes(files[0])
    assert verify(tmp_path / "a.png", runs=[runs["classes"]]).judgement == "claimed"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"prompt": "a dog"}, "names nothing that this model draws. It draws: lower, upper"),
        ({"prompt": "upper or lower"}, "names lower and upper|names upper and lower"),
        ({"prompt": "uppermost"}, "names nothing"),
        ({"prompt": "upper", "n": 65}, "n = 65 must be between 1 and 64"),
        ({"prompt": "upper", "size": "512x512"}, "makes pictures of 8x8; leave size out"),
        ({"prompt": "upper", "extra_body": {"options": {"guidance": "NaN"}}}, "guidance"),
        ({"prompt": "upper", "extra_body": {"options": {"step": 2}}}, "did you mean 'steps'"),
        ({"prompt": "upper", "extra_body": {"options": {"steps": 10**9}}}, "more than this server allows: 1000"),
        ({"prompt": "", "extra_body": {"given": {"label": "middle"}}}, "There is no label 'middle'"),
        ({"prompt": "", "extra_body": {"given": {"source": "/etc/passwd"}}}, "'source' is not an input of the model"),
        ({"prompt": "", "extra_body": {"colour": "red"}}, "'colour' is not a field of this request"),
        ({"prompt": "", "quality": "hd"}, "quality"),
    ],
)
def test_what_cannot_be_drawn_is_said(client: "openai.OpenAI", more: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said):
        client.images.generate(model="classes", **more)


def test_a_picture_is_edited(client: "openai.OpenAI", runs: dict[str, Path], tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    with open(tmp_path / "red.png", "rb") as file:
        answer = client.images.edit(
            model="edits", image=file, prompt="", extra_body={"options": {"direction": "forward"}}
        )
    ours = api.generate(runs["edits"], given={"source": np.full((16, 16, 3), (255, 0, 0), np.uint8)})
    assert np.array_equal(pixels(base64.b64decode((answer.data or [])[0].b64_json or "")), ours[0])


def test_a_text_goes_on_and_the_stream_says_the_same(client: "openai.OpenAI", runs: dict[str, Path]) -> None:
    asked: Any = dict(model="text", prompt="the cat", max_tokens=20, n=2, seed=1)
    whole = client.completions.create(**asked)
    pieces = ["", ""]
    ends: list[Any] = [None, None]
    for chunk in client.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            pieces[choice.index] += choice.text
            ends[choice.index] = choice.finish_reason or ends[choice.index]
        usage = chunk.usage
    alone = api.generate(runs["text"], 2, seed=1, given={"prompt": "the cat"}, options={"n_tokens": 20})
    assert [f"the cat{choice.text}" for choice in whole.choices] == list(alone)
    assert pieces == [choice.text for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices] and usage == whole.usage


def test_log_probabilities_stop_and_echo(client: "openai.OpenAI") -> None:
    asked: Any = dict(model="text", prompt="a dog", max_tokens=30, seed=2, extra_body={"options": {"top_k": 3}})
    plain = client.completions.create(**asked).choices[0]
    told = client.completions.create(**asked, logprobs=3).choices[0]
    assert told.text == plain.text and told.logprobs is not None
    for token, value, best in zip(*(list(x or ()) for x in (
        told.logprobs.tokens, told.logprobs.token_logprobs, told.logprobs.top_logprobs
    )), strict=True):  # fmt: skip
        assert best[token] == value < 0 and len(best) == 3
    stop = plain.text[3:5]
    stopped = client.completions.create(**asked, stop=stop).choices[0]
    assert stopped.text == plain.text[: plain.text.index(stop)] and stopped.finish_reason == "stop"
    assert client.completions.create(**asked, echo=True).choices[0].text == "a dog" + plain.text


def test_a_chat_is_answered_and_streamed(client: "openai.OpenAI") -> None:
    asked: Any = dict(model="chat", messages=[{"role": "user", "content": "hello 3"}], max_tokens=12, seed=5)
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    assert whole.usage is not None and 1 <= whole.usage.completion_tokens <= 12
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None and len((logprobs.content or [])[0].top_logprobs) == 2
    parts = [chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**asked, stream=True)]
    assert "".join(parts) == whole.choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="has not learned chats"):
        client.chat.completions.create(**asked | {"model": "text"})


def test_pairs_are_translated(client: "openai.OpenAI", runs: dict[str, Path]) -> None:
    answer = client.chat.completions.create(model="pairs", messages=[{"role": "user", "content": "one 1"}])
    assert [answer.choices[0].message.content] == list(api.generate(runs["pairs"], 1, given={"source": "one 1"}))


def test_no_run_speaks(client: "openai.OpenAI") -> None:
    with pytest.raises(openai.NotFoundError, match="No speech run is served"):
        client.audio.speech.create(model="text", voice="alloy", input="Hi")


def test_a_wrong_key_is_refused(address: str) -> None:
    for key in ("a-ke", "a-key2", "Bearer a-key", "another a-key"):
        with pytest.raises(openai.AuthenticationError, match="Send one of this server's keys"):
            openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0).models.list()
    assert openai.OpenAI(base_url=f"{address}/v1", api_key="another", max_retries=0).models.list().data


# ------------------------------------------------------------------------------------------------------- tritonclient


def tensor(name: str, value: np.ndarray, datatype: str) -> Any:
    made = tritonhttp.InferInput(name, list(value.shape), datatype)
    made.set_data_from_numpy(value)
    return made


def test_triton_describes_every_run(triton: Any, runs: dict[str, Path]) -> None:
    assert triton.is_server_live(headers()) and triton.is_server_ready(headers())
    for name in runs:
        assert triton.is_model_ready(name, headers=headers())
        described, config = (
            ask(name, headers=headers()) for ask in (triton.get_model_metadata, triton.get_model_config)
        )
        assert [one["name"] for one in described["inputs"]] == [one["name"] for one in config["input"]]
    assert not triton.is_model_ready("nothing", headers=headers())
    assert "binary_tensor_data" in triton.get_server_metadata(headers())["extensions"]
    assert triton.get_inference_statistics("classes", headers=headers())["model_stats"][0]["name"] == "classes"
    assert {one["name"] for one in triton.get_model_repository_index(headers())} == set(runs)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_triton_sends_and_receives_tensors(
    triton: Any, runs: dict[str, Path], binary: bool, compression: str | None
) -> None:
    label = tritonhttp.InferInput("label", [2], "BYTES")
    label.set_data_from_numpy(np.array(["upper", "lower"], dtype=object), binary_data=binary)
    answer = triton.infer(
        "classes",
        [tensor("seed", np.array([7]), "INT64"), label],
        outputs=[tritonhttp.InferRequestedOutput("x", binary_data=binary)],
        headers=headers(),
        parameters={"steps": 2},
        request_compression_algorithm=compression,
    )
    alone = api.generate(runs["classes"], seed=7, given={"label": ["upper", "lower"]}, options={"steps": 2})
    np.testing.assert_allclose(answer.as_numpy("x"), alone.x.numpy(), atol=1e-6)
    assert answer.get_response()["parameters"]["digital_source_type"] == "trainedAlgorithmicMedia"


def test_who_names_no_seed_gets_a_fresh_one_and_is_told_it(triton: Any, address: str) -> None:
    def seen(*inputs: Any) -> tuple[int, np.ndarray]:
        answer = triton.infer("classes", list(inputs), headers=headers(), parameters={"steps": 2})
        return answer.get_response()["parameters"]["seed"], answer.as_numpy("x")

    (seed, x), (other, _) = seen(tensor("n", np.array([2]), "INT64")), seen(tensor("n", np.array([2]), "INT64"))
    assert seed != other
    again = seen(tensor("n", np.array([2]), "INT64"), tensor("seed", np.array([seed]), "INT64"))
    np.testing.assert_array_equal(again[1], x)
    answers = [post(address, "/v1/models/classes:predict", {"instances": [{}, {"seed": 3}]})[1] for _ in range(2)]
    seeds = [[one["seed"] for one in answer["predictions"]] for answer in answers]
    assert seeds[0][0] != seeds[1][0] and seeds[0][1] == seeds[1][1] == 3
    assert answers[0]["predictions"][1]["x"] == answers[1]["predictions"][1]["x"]


def test_triton_edits_pictures_and_goes_on_with_texts(triton: Any, runs: dict[str, Path]) -> None:
    source = np.random.default_rng(0).uniform(-1, 1, (2, 3, 16, 16)).astype(np.float32)
    answer = triton.infer("edits", [tensor("source", source, "FP32")], headers=headers())
    assert answer.as_numpy("x").shape == (2, 3, 16, 16) and answer.as_numpy("file")[1].startswith(b"\x89PNG")
    prompt = [tensor("prompt", np.array(["the cat"], dtype=object), "BYTES"), tensor("seed", np.array([0]), "INT64")]
    texts = triton.infer("text", prompt, headers=headers(), parameters={"n_tokens": 5}).as_numpy("text")
    assert [texts[0].decode()] == list(
        api.generate(runs["text"], 1, given={"prompt": "the cat"}, options={"n_tokens": 5})
    )
    for wrong, said in ((source * 2, "within"), (source[:, :1], "must have the shape"), (source * np.nan, "finite")):
        with pytest.raises(tritonhttp.InferenceServerException, match=said):
            triton.infer("edits", [tensor("source", wrong, "FP32")], headers=headers())


# ------------------------------------------------------------------------------------------------------- plain HTTP


def test_tensorflow_serving_predicts_rows_and_columns(address: str, runs: dict[str, Path]) -> None:
    status, rows = post(address, "/v1/models/classes:predict", {
        "instances": [{"label": "upper", "seed": 7}, {"label": "lower", "seed": 7}], "parameters": {"steps": 2},
    })  # fmt: skip
    assert status == 200
    alone = api.generate(runs["classes"], seed=7, given={"label": ["upper", "lower"]}, options={"steps": 2})
    np.testing.assert_allclose([one["x"] for one in rows["predictions"]], alone.x.numpy(), atol=1e-5)
    status, table = post(address, "/v1/models/classes:predict", {
        "inputs": {"label": ["upper", "lower"], "seed": 7}, "parameters": {"steps": 2},
    })  # fmt: skip
    assert status == 200
    np.testing.assert_allclose(table["outputs"]["x"], alone.x.numpy(), atol=1e-5)
    assert base64.b64decode(table["outputs"]["file"][0]["b64"]).startswith(b"\x89PNG")
    status, error = post(address, "/v1/models/classes:predict", {"instances": [{"lable": "upper"}]})
    assert status == 400 and "'lable' is not an input" in error["error"]


def test_music_comes_as_files(address: str, runs: dict[str, Path]) -> None:
    status, answer = post(address, "/v1/music/generations", {"model": "music", "seed": 4, "response_format": "all"})
    assert status == 200
    files = {suffix: base64.b64decode(text) for suffix, text in answer["data"][0]["files"].items()}
    assert files["mid"].startswith(b"MThd") and files["wav"].startswith(b"RIFF")
    assert api.generate(runs["music"], 1, seed=4).files()[0][".mid"] == files["mid"]


def test_no_answer_says_where_the_runs_lie(address: str, runs: dict[str, Path]) -> None:
    folder = str(next(iter(runs.values())).parent)
    said = []
    for path in ("/v1/models", "/v1/models/classes", "/v2/models/classes", "/openapi.json", "/metrics", "/nothing"):
        request = urllib.request.Request(address + path, headers=headers())
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                said.append(answer.read().decode() + str(answer.headers))
        except urllib.error.HTTPError as error:
            said.append(error.read().decode() + str(error.headers))
    said += [json.dumps(post(address, "/v1/completions", {"model": "text", "prompt": "☃"}))]
    assert "not in the vocabulary" in said[-1]
    assert not [text for text in said if folder in text or "/tmp" in text or "Traceback" in text]

"""TensorFlow Serving's REST API, which is KServe's V1 protocol as well.

    POST /v1/models/NAME:predict    {"instances": [{"label": "3", "seed": 7}]} → {"predictions": [{"x": …, "seed": 7}]}
                                    {"inputs": {"label": ["3", "5"]}}          → {"outputs": {"x": …, "seed": …}}
    GET  /v1/models/NAME/metadata   the signature

An instance is one sample; those without a seed share a fresh one, which the answer names.  Bytes are {"b64": …}, as
TensorFlow Serving writes them.
"""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bowerbird.serve import tensors, words
from bowerbird.serve.endpoints import (
    Endpoint,
    Refused,
    answering,
    any_json,
    any_seed,
    engine_of,
    read_json,
    unless_gone,
)
from bowerbird.serve.limits import Limits
from bowerbird.serve.served import Served
from bowerbird.spec import Tensors

FIELDS = ("instances", "inputs", "signature_name", "parameters")
SIGNATURE, VERSION = "serving_default", "1"
DTYPES = {"FP32": "DT_FLOAT", "INT64": "DT_INT64", "BYTES": "DT_STRING"}


async def predict(request: Request) -> Response:
    """A sample for every instance."""
    engine = engine_of(request)
    _require_version(request)
    run, body = engine.run(request.path_params["name"]), any_json(await read_json(request))
    if not isinstance(body, dict):
        raise Refused(400, 'The body must be an object such as {"instances": [{}]}.')
    if strange := [name for name in body if name not in FIELDS]:
        raise Refused(400, f"'{strange[0]}' is not a field of this request; known: {', '.join(FIELDS)}.")
    if body.get("signature_name") not in (None, "", SIGNATURE):
        raise Refused(400, f"The only signature is '{SIGNATURE}'.")
    if ("instances" in body) == ("inputs" in body):
        raise Refused(400, "Send either 'instances', one for each sample, or 'inputs', a list for each name.")
    rows = instances(body["instances"]) if "instances" in body else columns(body["inputs"])
    if len(rows) > engine.limits.samples:
        raise Refused(400, f"{len(rows)} samples are too many; the limit is {engine.limits.samples}.")
    unnamed = {"seed": any_seed()}
    given = await words.aside(run, lambda: [unnamed | _given(run, row, engine.limits) for row in rows])
    samples = await unless_gone(request, tensors.one_by_one(engine, run, given, _options(body)))
    names = [one.name for one in tensors.outputs(run.spec)]
    found = [await tensors.computed(one, names) for one in samples]
    predictions = [
        {name: _json(value[0]) for name, value in one.items()} | {"seed": row["seed"]}
        for row, one in zip(given, found, strict=True)
    ]
    if "instances" in body:
        return JSONResponse({"predictions": predictions})
    return JSONResponse({"outputs": {name: [one[name] for one in predictions] for name in [*names, "seed"]}})


def instances(value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise Refused(400, "'instances' must be a list with an entry for each sample; {} asks for one at random.")
    return value


def columns(value: Any) -> list[dict[str, Any]]:
    """The rows of a table of columns; a column of one value is for all."""
    if not isinstance(value, dict):
        raise Refused(400, "'inputs' must be an object: a list for each name.")
    lists = {name: column if isinstance(column, list) else [column] for name, column in value.items()}
    n = max(map(len, lists.values()), default=1)
    if any(len(column) not in (1, n) for column in lists.values()) or n == 0:
        raise Refused(400, "All columns of 'inputs' must have the same number of values, or one value.")
    return [{name: column[i % len(column)] for name, column in lists.items()} for i in range(n)]


def _options(body: Mapping[str, Any]) -> dict[str, Any]:
    options = body.get("parameters") or {}
    if not isinstance(options, dict):
        raise Refused(400, "'parameters' must be an object of sampling options.")
    return options


def _given(run: Served, row: Any, limits: Limits) -> dict[str, Any]:
    """What an instance gives; a value alone is that of the only input."""
    if not isinstance(row, dict) or row.keys() == {"b64"}:
        if len(words.taken(run.spec)) != 1:
            raise Refused(400, f"An instance is an object of: {', '.join(['seed', 'number', *words.taken(run.spec)])}.")
        row = {next(iter(words.taken(run.spec))): row}
    numbers = {name: tensors.whole(row[name], name) for name in ("seed", "number") if name in row}
    return numbers | {name: _value(run, name, row[name], limits) for name in row if name not in numbers}


def _value(run: Served, name: str, value: Any, limits: Limits) -> Any:
    field = run.spec.given.get(name)
    if isinstance(value, dict) and value.keys() == {"b64"}:
        value = value["b64"] if isinstance(field, Tensors) else _decoded(name, value["b64"])
    if isinstance(field, Tensors) and isinstance(value, list):
        try:
            array = np.asarray(value, dtype=np.float32)
        except (ValueError, TypeError, OverflowError):
            raise Refused(400, f"'{name}' must be an array of numbers.") from None
        return tensors.pictures(name, field, array[None], limits)
    if isinstance(value, list):
        raise Refused(400, f"'{name}' of an instance must be one value, not a list.")
    return words.from_json(run, {name: value}, limits)[name]


def _decoded(name: str, text: Any) -> str:
    """A string that came as bytes in base64."""
    try:
        return base64.b64decode(text, validate=True).decode()
    except (TypeError, ValueError):
        raise Refused(400, f"'{name}' is not UTF-8 in base64.") from None


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _require_version(request: Request) -> None:
    if request.path_params.get("version", VERSION) != VERSION:
        raise Refused(404, f"The only version of a model is {VERSION}.")


async def metadata(request: Request) -> Response:
    """The signature, as TensorFlow Serving describes it."""
    _require_version(request)
    run = engine_of(request).run(request.path_params["name"])
    outputs = [*tensors.outputs(run.spec), tensors.Described("seed", "INT64", (-1,))]
    sides = {"inputs": tensors.inputs(run.spec), "outputs": outputs}
    signature = {side: {one.name: _tensor_info(one) for one in described} for side, described in sides.items()}
    definition = {"signature_def": {SIGNATURE: signature | {"method_name": "tensorflow/serving/predict"}}}
    return JSONResponse(
        {
            "model_spec": {"name": run.name, "signature_name": "", "version": VERSION},
            "metadata": {"signature_def": definition},
        }
    )


def _tensor_info(one: tensors.Described) -> dict[str, Any]:
    dim = [{"size": str(size), "name": ""} for size in one.shape]
    shape = {"dim": dim, "unknown_rank": False}
    return {"dtype": DTYPES[one.datatype], "tensor_shape": shape, "name": one.name}


BODY = {
    "application/json": {
        "type": "object",
        "properties": {
            "instances": {"type": "array", "minItems": 1, "items": {}},
            "inputs": {"type": "object"},
            "signature_name": {"enum": ["", SIGNATURE]},
            "parameters": {"type": "object"},
        },
    }
}
ENDPOINTS = [
    Endpoint("POST", "/v1/models/{name}:predict", predict, "TensorFlow Serving and KServe V1: predicts", BODY),
    Endpoint(
        "POST", "/v1/models/{name}/versions/{version}:predict", predict, "The same, with a version", BODY
    ),
    Endpoint(
        "GET", "/v1/models/{name}/versions/{version}/metadata", metadata, "The signature, with a version",
        answer=answering(model_spec="object", metadata="object"),
    ),
    Endpoint(
        "GET", "/v1/models/{name}/metadata", metadata, "TensorFlow Serving: the signature",
        answer=answering(model_spec="object", metadata="object"),
    ),
]  # fmt: skip

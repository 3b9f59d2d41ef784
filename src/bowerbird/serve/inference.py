"""The Open Inference Protocol V2 over REST, with Triton's binary tensors, as ``tritonclient.http`` speaks it.

A request with binary tensors is JSON of ``Inference-Header-Content-Length`` bytes, and behind it the bytes of the
tensors in the order of the inputs; an answer likewise.  An element of BYTES is its length (4 bytes, little-endian) and
itself.  Sampling options are ``parameters`` of the request.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bowerbird import __version__
from bowerbird.serve import tensors, words
from bowerbird.serve.endpoints import (
    Endpoint,
    Refused,
    answering,
    any_json,
    any_seed,
    engine_of,
    read_body,
    unless_gone,
)
from bowerbird.serve.served import Served

LENGTH = "inference-header-content-length"
VERSION = "1"
DTYPES: dict[str, Any] = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
OF_THE_PROTOCOL = (
    "binary_data_output",
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "priority",
    "timeout",
    "n",
    "seed",
)
"""Parameters that are no sampling options."""
FIELDS = ("id", "inputs", "outputs", "parameters")
OF_THE_PATH = ("model_name", "model_version")
"""What the address says already, and KServe's client repeats."""
EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]


def _run(request: Request) -> Served:
    if request.path_params.get("version", VERSION) != VERSION:
        raise Refused(404, f"The only version of a model is {VERSION}.")
    return engine_of(request).run(request.path_params["name"])


# ------------------------------------------------------------------------------------------------------- descriptions


async def server(request: Request) -> Response:
    return JSONResponse({"name": "bowerbird", "version": __version__, "extensions": EXTENSIONS})


async def live(request: Request) -> Response:
    return JSONResponse({"live": True})


async def ready(request: Request) -> Response:
    """Ready, unless the server is going down."""
    draining = engine_of(request).draining
    return JSONResponse({"ready": not draining}, 503 if draining else 200)


async def model_ready(request: Request) -> Response:
    _run(request)
    return await ready(request)


async def metadata(request: Request) -> Response:
    run = _run(request)

    def told(one: tensors.Described) -> dict[str, Any]:
        return {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)}

    return JSONResponse(
        {
            "name": run.name,
            "versions": [VERSION],
            "platform": "bowerbird_pytorch",
            "inputs": [told(one) for one in tensors.inputs(run.spec)],
            "outputs": [told(one) for one in tensors.outputs(run.spec)],
        }
    )


async def config(request: Request) -> Response:
    """Triton's configuration of the model.  Requests are batched by the server, whatever inputs they give."""
    run = _run(request)

    def told(one: tensors.Described) -> dict[str, Any]:
        kind = "TYPE_STRING" if one.datatype == "BYTES" else f"TYPE_{one.datatype}"
        return {"name": one.name, "data_type": kind, "dims": list(one.shape)}

    return JSONResponse(
        {
            "name": run.name,
            "platform": "",
            "backend": "bowerbird",
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": 0,
            "input": [told(one) | {"optional": one.optional} for one in tensors.inputs(run.spec)],
            "output": [told(one) for one in tensors.outputs(run.spec)],
            "parameters": {"samples_together": {"string_value": str(engine_of(request).workers[run.name].at_once)}},
        }
    )


async def statistics(request: Request) -> Response:
    engine = engine_of(request)
    names = [_run(request).name] if "name" in request.path_params else list(engine.runs)
    rows = []
    for name in names:
        tally = engine.workers[name].tally
        rows.append(
            {
                "name": name,
                "version": VERSION,
                "inference_count": tally.samples,
                "execution_count": tally.batches or tally.samples,
                "inference_stats": {"compute_infer": {"count": tally.samples, "ns": int(tally.seconds * 1e9)}},
            }
        )
    return JSONResponse({"model_stats": rows})


async def index(request: Request) -> Response:
    await read_body(request, engine_of(request).limits)
    runs = engine_of(request).runs
    return JSONResponse([{"name": name, "version": VERSION, "state": "READY", "reason": ""} for name in runs])


# ------------------------------------------------------------------------------------------------------- inference


async def infer(request: Request) -> Response:
    """Samples for the inputs."""
    engine, run = engine_of(request), _run(request)
    body, binary = _split(request, await _unpacked(request))
    if strange := [name for name in body if name not in FIELDS + OF_THE_PATH]:
        raise Refused(400, f"'{strange[0]}' is not a field of this request; known: {', '.join(FIELDS)}.")
    if body.get("model_name") not in (None, run.name):
        raise Refused(400, f"The body names another model than the address, which asks for '{run.name}'.")
    given = read_inputs(body.get("inputs", []), binary)
    parameters = _table(body.get("parameters", {}), "parameters")
    _require_types(run, given)
    if twice := sorted(given.keys() & parameters.keys() & {"seed", "n"}):
        raise Refused(400, f"'{twice[0]}' is both an input and a parameter; leave one of them out.")
    named = given.pop("seed", parameters.get("seed"))
    seed = any_seed() if named is None else _scalar(named, "seed")
    asked = given.pop("n", parameters.get("n"))
    n = None if asked is None else _scalar(asked, "n")
    if n == 0:
        raise Refused(400, "n = 0 asks for nothing; it must be at least 1.")
    values = await words.aside(
        run, lambda: {name: tensors.tensor_given(run, name, value, engine.limits) for name, value in given.items()}
    )
    options = {name: value for name, value in parameters.items() if name not in OF_THE_PROTOCOL}
    wanted = _outputs(run, body, parameters)
    samples = await unless_gone(request, engine.submit(run.name, n, seed=seed, given=values, options=options))
    found = await tensors.computed(samples, list(wanted))
    datatypes = {one.name: one.datatype for one in tensors.outputs(run.spec)}
    about: dict[str, Any] = {"model_name": run.name, "model_version": VERSION}
    about |= {"id": body["id"]} if isinstance(body.get("id"), str) else {}
    about["parameters"] = {"digital_source_type": "trainedAlgorithmicMedia", "seed": seed}
    return _answer(about, [(name, datatypes[name], found[name], wanted[name]) for name in wanted])


def _require_types(run: Served, given: Mapping[str, np.ndarray]) -> None:
    """Refused where an input is of another type than the metadata say.

    Two may come in a second way: pictures as files, and classes by their numbers.
    """
    types = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
    second = {"FP32": ("FP32", "BYTES"), "BYTES": ("BYTES",), "INT64": ("INT64",)}
    for one in tensors.inputs(run.spec):
        wanted = second[one.datatype] if one.name not in tensors.classes(run.spec) else ("BYTES", "INT64")
        if one.name in given and types.get(given[one.name].dtype, "BYTES") not in wanted:
            raise Refused(400, f"The input '{one.name}' must be {' or '.join(wanted)}, as in the model metadata.")


async def _unpacked(request: Request) -> bytes:
    """The body, decompressed where the client compressed it."""
    limits = engine_of(request).limits
    data, coding = await read_body(request, limits), request.headers.get("content-encoding", "identity").lower()
    if coding == "identity":
        return data
    if coding not in ("gzip", "deflate"):
        raise Refused(415, f"The content encoding '{coding}' is not supported; gzip and deflate are.")
    most = int(limits.body_mb * 1e6)
    try:
        plain = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data, most + 1)
    except zlib.error:
        raise Refused(400, f"The body is not valid {coding} data.") from None
    if len(plain) > most:
        raise Refused(413, f"The request is too large; the limit is {limits.body_mb:g} MB.")
    return plain


def _split(request: Request, data: bytes) -> tuple[dict[str, Any], bytes]:
    """JSON, and the bytes behind it."""
    length = request.headers.get(LENGTH)
    if length is None and not request.headers.get("content-type", "").startswith("application/json"):
        if "content-type" in request.headers:
            raise Refused(415, "Send the header Content-Type: application/json.")
    if length is not None and not (length.isascii() and length.isdigit() and int(length) <= len(data)):
        raise Refused(400, "The header Inference-Header-Content-Length does not match the body.")
    end = len(data) if length is None else int(length)
    return _table(any_json(data[:end]), "The body"), data[end:]


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused(400, f"{name} must be an object.")
    return value


def read_inputs(entries: Any, binary: bytes) -> dict[str, np.ndarray]:
    """The inputs by name, from JSON or from the bytes behind it."""
    if not isinstance(entries, list):
        raise Refused(400, "'inputs' must be a list.")
    found: dict[str, np.ndarray] = {}
    at = 0
    for entry in entries:
        name, datatype, shape = _described(entry)
        if name in found:
            raise Refused(400, f"The input '{name}' is there twice.")
        size = _table(entry.get("parameters", {}), "parameters").get("binary_data_size")
        if size is None:
            found[name] = _from_json(name, datatype, shape, entry.get("data"))
            continue
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(binary) - at:
            raise Refused(400, f"The bytes of the input '{name}' are missing: the body ends before them.")
        found[name] = _from_bytes(name, datatype, shape, binary[at : at + size])
        at += size
    if at != len(binary):
        raise Refused(400, f"{len(binary) - at} bytes after the last input belong to no input.")
    return found


def _described(entry: Any) -> tuple[str, str, tuple[int, ...]]:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise Refused(400, "Every input must be an object with name, datatype and shape.")
    name, datatype, shape = entry["name"], entry.get("datatype"), entry.get("shape")
    if datatype not in (*DTYPES, "BYTES"):
        raise Refused(400, f"The datatype of '{name}' must be one of {', '.join([*DTYPES, 'BYTES'])}.")
    sizes = shape if isinstance(shape, list) and len(shape) <= 8 else [None]
    if not all(isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**31 for size in sizes):
        raise Refused(400, f"The shape of '{name}' must be a list of whole numbers.")
    return name, datatype, tuple(sizes)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for one in shape:
        size *= one
    return size


def _from_json(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> np.ndarray:
    flat = _flattened(data)
    if len(flat) != _size(shape):
        raise Refused(400, f"The input '{name}' has {len(flat)} values, which do not fit its shape {list(shape)}.")
    try:
        if datatype == "BYTES":
            if not all(isinstance(one, str) for one in flat):
                raise ValueError
            return np.array(flat, dtype=object).reshape(shape)
        if not all(isinstance(one, int | float) for one in flat):
            raise ValueError
        return np.array(flat, dtype=DTYPES[datatype]).reshape(shape)
    except (ValueError, TypeError, OverflowError):
        raise Refused(400, f"The values of '{name}' are not of the datatype {datatype}.") from None


def _flattened(data: Any) -> list[Any]:
    """The values of a nested list, row by row."""
    if not isinstance(data, list):
        return [] if data is None else [data]
    flat: list[Any] = data
    while any(isinstance(one, list) for one in flat):
        flat = [value for one in flat for value in (one if isinstance(one, list) else [one])]
    return flat


def _from_bytes(name: str, datatype: str, shape: tuple[int, ...], data: bytes) -> np.ndarray:
    if datatype == "BYTES":
        elements = _elements(name, data)
        if len(elements) != _size(shape):
            raise Refused(400, f"The input '{name}' has {len(elements)} elements, which do not fit {list(shape)}.")
        array = np.empty(len(elements), dtype=object)
        array[:] = elements
        return array.reshape(shape)
    dtype = np.dtype(DTYPES[datatype]).newbyteorder("<")
    if len(data) != _size(shape) * dtype.itemsize:
        raise Refused(400, f"The input '{name}' has {len(data)} bytes, which do not fit {datatype} {list(shape)}.")
    return np.frombuffer(data, dtype).reshape(shape)


def _elements(name: str, data: bytes) -> list[bytes]:
    """Elements of BYTES: each a length in 4 bytes, and so many bytes."""
    found, at = [], 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if at + 4 > len(data) or end > len(data):
            raise Refused(400, f"The elements of the input '{name}' run past the end of its data.")
        found.append(data[at + 4 : end])
        at = end
    return found


def _scalar(value: Any, name: str) -> int:
    if isinstance(value, np.ndarray):
        if value.size != 1 or value.dtype.kind not in "iu":
            raise Refused(400, f"The input '{name}' must be one whole number.")
        value = value.reshape(-1)[0]
    return tensors.whole(value, name)


def _outputs(run: Served, body: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, bool]:
    """The outputs that are wanted, and whether as bytes."""
    there = [one.name for one in tensors.outputs(run.spec)]
    usual = bool(parameters.get("binary_data_output", False))
    entries = body.get("outputs") or [{"name": name} for name in there]
    if not isinstance(entries, list):
        raise Refused(400, "'outputs' must be a list.")
    wanted = {}
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("name") not in there:
            raise Refused(400, f"The outputs of this model are: {', '.join(there)}.")
        wishes = _table(entry.get("parameters", {}), "parameters")
        if strange := [name for name, value in wishes.items() if name != "binary_data" and value]:
            raise Refused(
                400, f"The parameter '{strange[0]}' of the output '{entry['name']}' is not supported; leave it out."
            )
        wanted[entry["name"]] = bool(wishes.get("binary_data", usual))
    return wanted


def _answer(about: dict[str, Any], found: list[tuple[str, str, np.ndarray, bool]]) -> Response:
    entries, tail = [], b""
    for name, datatype, value, as_bytes in found:
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(value.shape)}
        if as_bytes:
            data = _packed(value)
            entry["parameters"] = {"binary_data_size": len(data)}
            tail += data
        else:
            entry["data"] = [_text(one) for one in value.reshape(-1).tolist()]
        entries.append(entry)
    head = json.dumps(about | {"outputs": entries}, ensure_ascii=False).encode()
    if not tail:
        return Response(head, media_type="application/json")
    return Response(head + tail, media_type="application/octet-stream", headers={LENGTH: str(len(head))})


def _packed(value: np.ndarray) -> bytes:
    if value.dtype == object:
        return b"".join(len(one).to_bytes(4, "little") + one for one in value.reshape(-1))
    return np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()


def _text(value: Any) -> Any:
    """Bytes in JSON: text where they are some, else base64, as there is no other way."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        import base64

        return base64.b64encode(value).decode()


BODY = {
    "application/json": {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "inputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name", "datatype", "shape"],
                    "properties": {
                        "name": {"type": "string"},
                        "datatype": {"enum": [*DTYPES, "BYTES"]},
                        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 8},
                        "data": {},
                        "parameters": {"type": "object"},
                    },
                },
            },
            "outputs": {"type": "array", "items": {"type": "object", "required": ["name"]}},
            "parameters": {"type": "object"},
        },
    }
}


def _versions(method: str, path: str, handler: Any, summary: str, **more: Any) -> list[Endpoint]:
    """The same address with and without a version."""
    head, _, tail = path.partition("{name}")
    with_version = f"{head}{{name}}/versions/{{version}}{tail}"
    return [Endpoint(method, one, handler, summary, **more) for one in (path, with_version)]


READY = answering(ready="boolean")
MODEL = answering(name="string", versions="array", platform="string", inputs="array", outputs="array")
ENDPOINTS = [
    Endpoint("GET", "/v2", server, "Open Inference: the server", answer=answering(name="string", version="string")),
    Endpoint("GET", "/v2/health/live", live, "Open Inference: live", answer=answering(live="boolean"), is_open=True),
    Endpoint("GET", "/v2/health/ready", ready, "Open Inference: ready", answer=READY, is_open=True),
    Endpoint("GET", "/v2/models/stats", statistics, "Triton: statistics", answer=answering(model_stats="array")),
    Endpoint("POST", "/v2/repository/index", index, "Triton: the models", answer={"type": "array"}),
    *_versions("GET", "/v2/models/{name}", metadata, "Open Inference: a model", answer=MODEL),
    *_versions("GET", "/v2/models/{name}/ready", model_ready, "Is the model ready", answer=READY),
    *_versions("GET", "/v2/models/{name}/config", config, "Triton: its configuration", answer=answering(name="string")),
    *_versions("GET", "/v2/models/{name}/stats", statistics, "Its statistics", answer=answering(model_stats="array")),
    *_versions(
        "POST", "/v2/models/{name}/infer", infer, "Open Inference: infers", body=BODY,
        answer=answering(model_name="string", outputs="array"),
    ),
]  # fmt: skip

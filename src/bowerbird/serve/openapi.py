"""The OpenAPI document, made of the list that the routes are made of, so that neither can be without the other."""

import re
from collections.abc import Sequence
from typing import Any

from bowerbird import __version__
from bowerbird.serve.endpoints import Endpoint

OPENAI_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {"message": {"type": "string"}, "type": {"type": "string"}},
        }
    },
}
PLAIN_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
STATUSES = {
    "400": "The request is wrong; the message says what.",
    "401": "The key is missing or wrong.",
    "403": "The request came from a page of another site.",
    "404": "There is no such model.",
    "408": "The request came too slowly.",
    "413": "The request is too large.",
    "415": "The content type is not supported.",
    "421": "The server does not answer under this host name.",
    "429": "Too many requests are waiting; Retry-After says when to try again.",
    "503": "The server is shutting down.",
    "504": "The answer was not ready within the time limit.",
}


def document(endpoints: Sequence[Endpoint], runs: Sequence[str]) -> dict[str, Any]:
    """OpenAPI 3.1; ``runs`` are the names that ``model`` can have."""
    schemas: dict[str, Any] = {"OpenAIError": OPENAI_ERROR, "PlainError": PLAIN_ERROR}
    paths: dict[str, Any] = {}
    for one in endpoints:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, schemas, runs)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Bowerbird", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(one: Endpoint, schemas: dict[str, Any], runs: Sequence[str]) -> dict[str, Any]:
    plain = one.path.startswith("/v2") or ":" in one.path.rpartition("/")[2]
    error = {"$ref": f"#/components/schemas/{'PlainError' if plain else 'OpenAIError'}"}
    answers: dict[str, Any] = {one.answer_type: {"schema": dict(one.answer)}}
    if one.path.endswith("/infer"):
        answers["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    if one.streams:
        answers["text/event-stream"] = {}
    responses: dict[str, Any] = {"200": {"description": one.summary + ".", "content": answers}}
    for status, said in STATUSES.items():
        responses[status] = {"description": said, "content": {"application/json": {"schema": error}}}
    operation: dict[str, Any] = {"summary": one.summary, "responses": responses}
    if not one.is_open:
        operation["security"] = [{"key": []}, {}]
    names = re.findall(r"{(\w+)}", one.path)
    if names:
        operation["parameters"] = [_in_path(name, [*runs] if name == "name" else ["1"]) for name in names]
    if one.body is not None:
        content = {kind: {"schema": _hoisted(schema, schemas, runs)} for kind, schema in one.body.items()}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _in_path(name: str, values: list[str]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "enum": values}}


def _hoisted(schema: Any, schemas: dict[str, Any], runs: Sequence[str]) -> dict[str, Any]:
    """The schema, its definitions moved to those of the document, and ``model`` one of the runs."""
    schemas.update(schema.get("$defs", {}))
    kept = {key: value for key, value in schema.items() if key != "$defs"}
    properties = kept.get("properties", {})
    if "model" in properties:
        required = "model" in kept.get("required", ())
        named = {"type": "string" if required else ["string", "null"], "enum": [*runs, *([] if required else [None])]}
        kept["properties"] = properties | {"model": named}
    return kept

"""What can be asked, as an OpenAPI document: made of the very classes that read requests."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from demur.serving.asks import ChatAsked, TextAsked

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        },
        "demur": {"type": "object"},
    },
}
_STATUS = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
_ANSWER = {"type": "object", "required": ["id", "object", "created", "model", "choices", "usage", "demur"]}
_MODEL = {"type": "object", "required": ["id", "object", "created", "owned_by", "demur"]}
_LIST = {"type": "object", "required": ["object", "data"], "properties": {"data": {"type": "array", "items": _MODEL}}}
_WHY = {
    "400": "A parameter that is wrong or not supported.",
    "401": "No API key, or one that is not known.",
    "403": "Another host or origin than this server's.",
    "404": "No such model or path.",
    "408": "The body took too long to come.",
    "413": "The body is too large.",
    "415": "The body is no JSON by its type.",
    "429": "Too many requests wait; Retry-After says how long.",
    "503": "The server stops, or could not answer; Retry-After says how long.",
}


def described(keys: bool) -> dict[str, Any]:
    """The document; ``keys``: whether requests need one."""
    _, schemas = models_json_schema(
        [(ChatAsked, "validation"), (TextAsked, "validation")], ref_template="#/components/schemas/{model}"
    )
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "demur", "version": version("demur")},
        "paths": {
            "/v1/chat/completions": {"post": _post("chat", "ChatAsked")},
            "/v1/completions": {"post": _post("completions", "TextAsked")},
            "/v1/models": {"get": _get("models", _LIST)},
            "/v1/models/{name}": {"get": _get("model", _MODEL, "404") | {"parameters": [name]}},
            "/health": {"get": _get("health", _STATUS, "503", error=_STATUS)},
            "/ready": {"get": _get("ready", _STATUS, "503", error=_STATUS)},
            "/metrics": {"get": _get("metrics", {"type": "string"}, kind="text/plain")},
            "/openapi.json": {"get": _get("document", {"type": "object"})},
        },
        "components": {"schemas": {**schemas["$defs"], "Error": _ERROR}},
    }
    if keys:
        made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"key": []}]
        for path in ("/health", "/ready"):
            made["paths"][path]["get"]["security"] = []
    return made


def _post(operation: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    answer = {"application/json": {"schema": _ANSWER}, "text/event-stream": {"schema": {"type": "string"}}}
    return {
        "operationId": operation,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": {"description": "The answer.", "content": answer}, **_errors(*_WHY)},
    }


def _get(
    operation: str,
    schema: dict[str, Any],
    *errors: str,
    error: dict[str, Any] | None = None,
    kind: str = "application/json",
) -> dict[str, Any]:
    good = {"200": {"description": "What was asked for.", "content": {kind: {"schema": schema}}}}
    return {"operationId": operation, "responses": good | _errors("401", "403") | _errors(*errors, schema=error)}


def _errors(*statuses: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    of = schema or {"$ref": "#/components/schemas/Error"}
    return {s: {"description": _WHY[s], "content": {"application/json": {"schema": of}}} for s in statuses}

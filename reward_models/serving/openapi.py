"""What `serve` takes and gives as an OpenAPI 3.1 description: GET /openapi.json."""

from __future__ import annotations

from typing import Any

from r2w_eval.reward_models.items import ItemStatus

from r2w_eval import __version__
from r2w_eval.types import JudgeStatus

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": TEXT, "items": {"type": "object", "additionalProperties": TEXT}},
}
REFLECTION: Schema = {
    "type": "object",
    "description": "A remark on a draft, with what became of the draft.",
    "required": ["draft", "reflection"],
    "properties": {
        "id": TEXT, "prompt": TEXT, "draft": TEXT, "reflection": TEXT, "revision": TEXT,
        "earlier": {"type": "array", "items": TEXT},
    },
}  # fmt: skip
WRITING: Schema = {
    "type": "object",
    "description": "A piece of writing.",
    "required": ["response"],
    "properties": {"id": TEXT, "prompt": TEXT, "response": TEXT},
}
SCORE: Schema = {
    "type": "object",
    "required": ["id", "value", "parts", "status"],
    "properties": {
        "id": TEXT,
        "value": {"type": ["number", "null"], "description": "null unless the status is ok"},
        "parts": {"type": "object"},
        "status": {"enum": sorted({*map(str, ItemStatus), *map(str, JudgeStatus)})},
        "reason": TEXT,
    },
}
PART: Schema = {"type": "object", "properties": {"type": TEXT, "text": TEXT}}
CONTENT: Schema = {"anyOf": [TEXT, {"type": "array", "items": PART}]}
MESSAGE: Schema = {"type": "object", "properties": {"role": TEXT, "content": CONTENT}}
# an item that is none is no error of the request: it is answered with the status bad_item
ITEM: Schema = {"anyOf": [{"$ref": "#/components/schemas/Reflection"},
                          {"$ref": "#/components/schemas/Writing"}, {}]}  # fmt: skip
LIMITS = {
    413: "the body is larger than the server's limit, or has more items than may wait",
    500: "the scorer failed",
    503: "too many items wait; Retry-After says when to send again",
    504: "not scored in time",
}


def describe_api(needs_token: bool) -> Schema:
    """The whole description; `needs_token` is whether requests need a bearer token."""
    api: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "r2w-eval serve",
            "version": __version__,
            "description": "Scores of reflections and texts. An item without a score has a status "
            "and a reason, never a 0.",
        },
        "paths": _with_token(PATHS) if needs_token else PATHS,
        "components": {"schemas": {"Error": ERROR, "Reflection": REFLECTION, "Writing": WRITING,
                                   "Score": SCORE}},
    }  # fmt: skip
    if needs_token:
        api["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        api["security"] = [{"token": []}]
    return api


def _with_token(paths: dict[str, Schema]) -> dict[str, Schema]:
    refused = _failure("the bearer token is missing or wrong")
    return {
        path: {
            method: {**operation, "responses": {**operation["responses"], "401": refused}}
            for method, operation in methods.items()
        }
        for path, methods in paths.items()
    }


def _failure(reason: str) -> Schema:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": reason, "content": {"application/json": {"schema": schema}}}


def _reply(schema: Schema, kind: str = "application/json") -> Schema:
    return {"description": "the answer", "content": {kind: {"schema": schema}}}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _post(summary: str, body: Schema, answer: Schema, more: dict[int, str]) -> Schema:
    failures = {400: "the body is not what this path takes", **more, **LIMITS}
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": {
                "200": _reply(answer),
                **{str(status): _failure(reason) for status, reason in failures.items()},
            },
        }
    }


def _get(summary: str, answer: Schema) -> Schema:
    return {"get": {"summary": summary, "responses": {"200": answer}}}


NO_SCORE = {422: "some items have no score; `items` says why, by their place"}
SELFTEST = _object(
    passed={"type": "boolean"}, values={"type": "array", "items": {"type": ["number", "null"]}}
)
PATHS: dict[str, Schema] = {
    "/score": _post(
        "Scores of many items, or of the one item that the body is.",
        {"type": "object", "properties": {"items": {"type": "array", "items": ITEM}}},
        _object(
            scores={"type": "array", "items": {"$ref": "#/components/schemas/Score"}}, model=TEXT
        ),
        {},
    ),
    "/classify": _post(
        "vLLM's shape: the answer in the text, or in the assistant's last message, is scored as "
        "writing: without thinking, a chat template's prompt and tokens that end a turn.",
        {
            "type": "object",
            "anyOf": [
                _object(messages={"type": "array", "items": MESSAGE}),
                _object(input={"anyOf": [TEXT, {"type": "array", "items": TEXT}]}),
            ],
        },
        _object(object={"const": "list"}, model=TEXT, data={"type": "array", "items": _object(
            index={"type": "integer"}, label=TEXT, probs={"type": "array", "items": NUMBER},
            num_classes={"type": "integer"})}),
        NO_SCORE,
    ),
    "/get_reward": _post(
        "OpenRLHF's shape; a text of `query` may begin with its prompt. Scored is the answer.",
        {
            "type": "object",
            "required": ["query"],
            "properties": {
                "query": {"type": "array", "items": TEXT},
                "prompts": {
                    "type": ["array", "null"], "items": TEXT, "description": "one for each text",
                },
            },
        },
        _object(rewards={"type": "array", "items": NUMBER},
                scores={"type": "array", "items": NUMBER}, extra_logs={"type": "object"},
                model=TEXT),
        NO_SCORE,
    ),
    "/health": _get("Alive, and with which weights.", _reply(_object(
        status={"const": "ok"}, model=TEXT))),
    "/metrics": _get("Counters for Prometheus.", _reply(TEXT, "text/plain")),
    "/selftest": {"get": {
        "summary": "Whether a good remark is scored above a bad one.",
        "responses": {"200": _reply(SELFTEST), "500": _reply(
            {"anyOf": [SELFTEST, {"$ref": "#/components/schemas/Error"}]}),
            "503": _failure(LIMITS[503]), "504": _failure(LIMITS[504])},
    }},
    "/openapi.json": _get("This description.", _reply({"type": "object"})),
}  # fmt: skip

"""The OpenAPI description: complete and valid; `tests.support.web.api.Client` checks every response against it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
from fastapi import FastAPI
from jsonschema import Draft202012Validator
from sqlalchemy import Engine

from monitor.web.api import schemas
from storage.schema import JUDGE, metadata
from tests.support.web.api import Client


@pytest.fixture
def document(app: FastAPI) -> dict[str, Any]:
    """As it is served, to anybody."""
    found: dict[str, Any] = Client(app)._http.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, found in document["paths"].items():
        for method, one in found.items():
            yield method, path, one


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "$ref":
                yield inner
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_what_it_says_of_itself(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert (document["info"]["title"], document["info"]["version"]) == ("awry", version("awry"))
    assert document["components"]["securitySchemes"] == {
        "token": {"type": "http", "scheme": "bearer", "description": "`awry tokens create` makes one"}
    }


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    names = []
    for method, path, one in operations(document):
        where = f"{method} {path}"
        names.append(one["operationId"])
        assert one["summary"], where
        assert one["description"], where
        assert set(one["tags"]) <= tags, where
        assert one["security"] == [{"token": []}], where
        written = {p["name"] for p in one.get("parameters", []) if p["in"] == "path"}
        assert written == {part[1:-1] for part in path.split("/") if part.startswith("{")}, where
    assert len(set(names)) == len(names)


def test_every_operation_says_what_may_go_wrong(document: dict[str, Any]) -> None:
    for method, path, one in operations(document):
        (good,) = [status for status in one["responses"] if status < "300"]
        assert "schema" in one["responses"][good]["content"]["application/json"]
        errors = {int(status): found["content"] for status, found in one["responses"].items() if status >= "400"}
        assert {401, 413, 422, 429, 500, 503} <= set(errors), (method, path)
        assert 403 in errors, (method, path)  # by scope, or since it is not of the token's tenant
        assert (404 in errors) == ("{" in path), (method, path)
        problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        assert all(content == problem for content in errors.values()), (method, path)


def test_its_schemas_are_schemas_and_its_references_lead_somewhere(document: dict[str, Any]) -> None:
    found = document["components"]["schemas"]
    for schema in found.values():
        Draft202012Validator.check_schema(schema)
    assert {name.removeprefix("#/components/schemas/") for name in references(document)} == set(found)
    assert "HTTPValidationError" not in json.dumps(document)


def test_no_answer_has_a_place_for_a_text(document: dict[str, Any]) -> None:
    """`note` is what a reviewer writes, and goes in only."""
    answered = set()
    waiting = [r for _, _, one in operations(document) for r in references(one["responses"])]
    while waiting:
        name = waiting.pop().removeprefix("#/components/schemas/")
        if name not in answered:
            answered.add(name)
            waiting += references(document["components"]["schemas"][name])
    fields = {field for name in answered for field in document["components"]["schemas"][name]["properties"]}
    assert not {"text", "prompt", "response", "content", "attributes", "text_sha256", "note", "secret_sha256"} & fields
    assert {"Alert", "Message", "ProbeCard", "Problem"} <= answered


def test_there_is_no_page_that_loads_from_elsewhere(read: Client) -> None:
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        read.get(path, 404)


def test_states_and_kinds_are_those_of_the_tables(engine: Engine) -> None:
    """What a check constraint allows, an answer can say."""
    checks = {
        c.name: str(c.sqltext) for table in metadata.tables.values() for c in table.constraints if hasattr(c, "sqltext")
    }
    document = schemas.Alert.model_json_schema()["properties"]
    for name in ("state", "kind"):
        assert all(repr(value) in checks[f"ck_alerts_{name}"] for value in document[name]["enum"])
        assert checks[f"ck_alerts_{name}"].count("'") == 2 * len(document[name]["enum"])
    status = schemas.Message.model_json_schema()["properties"]["status"]["enum"]
    assert checks["ck_messages_status"].count("'") == 2 * len(status)
    judge, _ = schemas.ProbeScore.model_json_schema()["properties"]["judge"]["anyOf"]
    assert tuple(judge["enum"]) == JUDGE

"""The API is what its OpenAPI document says: each example, and nonsense at each of its operations."""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import tenant_proxy.api
from tenant_proxy.api.app import bare_document
from tenant_proxy.api.examples import STORY
from tenant_proxy.api.permissions import MATRIX
from tests.api.conftest import Reply, Service
from tests.api.schema import problems

ANSWERS = Path(tenant_proxy.api.__file__).parent / "answers.json"
SCRIPT = Path(__file__).parents[2] / "scripts" / "generate_api_reference.py"
DOCUMENT = json.loads(json.dumps(bare_document()))
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}


def check(name: str, reply: Reply) -> None:
    """The status is one that is declared, and the body what is declared for it."""
    _, _, operation = OPERATIONS[name]
    declared = operation["responses"].get(str(reply.status))
    assert declared is not None, f"{name} answers {reply.status}: {reply.text}"
    if reply.status in (204, 304):
        assert reply.text == ""
        return
    media = reply.headers["content-type"].split(";")[0]
    assert media in declared["content"], f"{name}: {media}"
    if media.endswith("json"):
        assert problems(reply.json, declared["content"][media]["schema"], DOCUMENT) == []


def test_what_the_document_is():
    assert DOCUMENT["openapi"].startswith("3.1")
    assert set(OPERATIONS) == set(MATRIX)
    assert {one.operation for one in STORY} == set(OPERATIONS)
    for name, (_, _, operation) in OPERATIONS.items():
        assert operation["summary"], name
        assert "401" in operation["responses"]
        if any(one["name"] == "dry_run" for one in operation.get("parameters", ())):
            # a rehearsal makes nothing: 200, also where 201 or 204 is answered without
            assert "200" in operation["responses"], name
        for status, response in operation["responses"].items():
            for content in response.get("content", {}).values():
                if "example" in content:
                    assert problems(content["example"], content["schema"], DOCUMENT) == [], f"{name} {status}"
        body = operation.get("requestBody")
        if body is not None and "application/json" in body["content"]:
            example = body["content"]["application/json"]["example"]
            assert problems(example, body["content"]["application/json"]["schema"], DOCUMENT) == []


async def test_the_examples(api, town):
    answers: dict[str, Any] = {}
    for one in STORY:
        reply = await api.ask(one.method, one.path, one.body, raw=one.raw, **one.headers)
        assert reply.status == one.status, f"{one.operation}: {reply.text}"
        check(one.operation, reply)
        if reply.status in (200, 201, 202) and reply.headers["content-type"] == "application/json":
            answers[one.operation] = shown(reply.json)
        if one.operation == "tenant_provision":
            with town.connect() as conn:
                conn.execute("SET ROLE acme_owner; CREATE TABLE acme.orders (id int)")

    if os.environ.get("TP_RECORD_ANSWERS"):
        ANSWERS.write_text(json.dumps(answers, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    # whatever the story has an answer for is shown in the document
    assert set(answers) == set(json.loads(ANSWERS.read_text())), "run this test with TP_RECORD_ANSWERS=1"


def shown(value: Any) -> Any:
    """As it may stand in a document: nothing secret, and of a list what the first is like."""
    if isinstance(value, list):
        return [shown(one) for one in value[:1]]
    if isinstance(value, dict):
        hidden = {
            "password": "q0Jx…",
            "secret": "tpx_7Hk…",
            "path": "/var/lib/tenant_proxy/archives/beta.tar",
            "directory": "/var/lib/tenant_proxy/migrations/5f70…",
            "dsn": "postgresql://alice:q0Jx…@127.0.0.1:6432/acme",
        }
        return {
            key: hidden[key] if key in hidden and isinstance(one, str) else shown(one)
            for key, one in value.items()
        }
    return value


NONSENSE = ("x" * 70, "ü", "\0", "%2e%2e", "-1", "0", "99999999999999999999", "a b", '"', "acme")
BODIES: tuple[bytes, ...] = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"{}",
    b'{"name": 1}',
    b'{"name": "\\u0000", "reason": "\\u0000", "login": "\\u0000"}',
    b'{"name": "a", "reason": "\\ud800", "login": "\\ud800"}',
    b'{"spec": {"pool": {"nonsense": 1}}, "grants": {"": []}}',
    b'{"name": "a", "nonsense": true}',
    b"\xff\xfe",
)


async def test_nonsense_is_refused_as_declared(api):
    """A fourth of it at each operation, another one at the next: make fuzz has the rest."""
    await walk_all(api, step=4)


@pytest.mark.fuzz
@pytest.mark.timeout(300)
async def test_all_nonsense_is_refused_as_declared(api):
    await walk_all(api, step=1)


async def walk_all(api: Service, step: int) -> None:
    """All operations on one catalog: what one of them has made by chance is there for those behind it."""
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=30)

    def ask(method: str, target: str, body: bytes | None, token: str | None = "admin") -> Reply:
        headers = {} if token is None else {"Authorization": f"Bearer {api.tokens[token]}"}
        connection.request(method, target, body, headers | {"Content-Type": "application/json"})
        response = connection.getresponse()
        found = {key.lower(): value for key, value in response.getheaders()}
        return Reply(response.status, found, response.read().decode())

    def walk(name: str, first: int) -> None:
        method, usual, asked = nonsense(name)
        for target, body in asked[first % step :: step]:
            reply = ask(method, target, body)
            assert reply.status < 500, f"{name} {target} {body!r}: {reply.text}"
            check(name, reply)
        reply = ask(method, usual, None, token=None)
        check(name, reply)
        assert reply.status == 401
        assert reply.headers["www-authenticate"].startswith("Bearer")

    for number, name in enumerate(sorted(OPERATIONS)):
        await asyncio.to_thread(walk, name, number)
    connection.close()


def nonsense(name: str) -> tuple[str, str, list[tuple[str, bytes | None]]]:
    """An operation's method, a path that it has, and requests that mean nothing."""
    method, path, operation = OPERATIONS[name]
    parameters = operation.get("parameters", [])
    in_path = [one["name"] for one in parameters if one["in"] == "path"]
    asked: list[tuple[str, bytes | None]] = []
    for value in NONSENSE if in_path else ():
        filled = path
        for one in in_path:
            filled = filled.replace(f"{{{one}}}", quote(value, safe=""))
        asked.append((filled, b"{}" if "requestBody" in operation else None))
    usual = path
    for one in in_path:
        usual = usual.replace(f"{{{one}}}", "1")
    for one in parameters:
        if one["in"] == "query":
            asked += [(f"{usual}?{one['name']}={quote(value, safe='')}", b"{}") for value in NONSENSE[::2]]
    if "requestBody" in operation:
        asked += [(usual, body) for body in BODIES]
    return method, usual, asked


async def test_errors_that_are_none_of_an_operation(api):
    for method, path, status in (("GET", "/nowhere", 404), ("POST", "/v1/whoami", 405), ("GET", "/v1", 404)):
        reply = await api.ask(method, path)
        assert reply.status == status
        assert reply.headers["content-type"] == "application/problem+json"
        assert problems(reply.json, {"$ref": "#/components/schemas/Problem"}, DOCUMENT) == []
    assert (await api.ask("PUT", "/v1/tenants")).headers["allow"]
    document: Any = (await api.ask("GET", "/openapi.json", token=None)).json
    assert document == DOCUMENT
    assert (await api.ask("POST", "/v1/tenants", raw=b" " * (2 << 20))).status == 413


def test_the_reference_is_as_generated():
    spec = importlib.util.spec_from_file_location("generate", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.generated() == module.DOCS.read_text(), "run scripts/generate_api_reference.py"

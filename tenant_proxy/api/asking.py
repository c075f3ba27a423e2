"""How the API is asked: one request, pages of a list, work that becomes a job."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from pydantic import ValidationError

from tenant_proxy.catalog.failures import CODES, Failure
from tenant_proxy.catalog.records import Job, JobState, Record

TIMEOUT_S: Final = 90.0
#: the server is asked to answer within so many seconds before there is a job to look at
_WAIT_S: Final = 20
_POLL_S: Final = (0.1, 0.2, 0.5, 1.0)
_PAGE: Final = 1000

RecordT = TypeVar("RecordT", bound=Record)


class Rehearsed(Exception):
    """What a verb would run, where the client only rehearses."""

    def __init__(self, sql: list[str]) -> None:
        super().__init__("rehearsed")
        self.sql = sql


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Any


class Asking:
    """With `rehearse` verbs that would change something raise `Rehearsed`, and change nothing."""

    def __init__(self, url: str, token: str, *, rehearse: bool = False, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Failure("invalid", f"{url!r} is no address of an API", hint="https://HOST[:PORT]")
        self._host, self._port = parts.hostname, parts.port
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._base = parts.path.rstrip("/")
        self._token = token
        self._rehearse = rehearse
        self._timeout_s = timeout_s
        self._idle: list[http.client.HTTPConnection] = []
        #: told what is being done, how much of it, and of how much
        self.watcher: Callable[[str, int, int], None] | None = None

    async def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _tell(self, what: str, done: int, total: int) -> None:
        if self.watcher is not None:
            self.watcher(what, done, total)

    async def _record(
        self,
        model: type[RecordT],
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> RecordT:
        answer = await self._ask(method, path, body, query=query, headers=headers)
        return parsed(model, answer.body)

    async def _all(
        self, model: type[RecordT], path: str, query: Mapping[str, Any] | None = None
    ) -> list[RecordT]:
        answer = await self._ask("GET", path, query=query)
        return [parsed(model, one) for one in answer.body["items"]]

    async def _pages(
        self,
        model: type[RecordT],
        path: str,
        query: Mapping[str, Any],
        limit: int | None,
        cursor: str | None = None,
    ) -> list[RecordT]:
        found: list[RecordT] = []
        while limit is None or len(found) < limit:
            size = _PAGE if limit is None else min(_PAGE, limit - len(found))
            answer = await self._ask("GET", path, query={**query, "cursor": cursor, "limit": size})
            found += [parsed(model, one) for one in answer.body["items"]]
            cursor = answer.body["next"]
            if cursor is None:
                break
        return found

    async def _work(
        self, method: str, path: str, body: Any = None, *, undo: bool = False, version: int | None = None
    ) -> Job | Any:
        """The answer, or the ended job that the server went on with; what failed is a Failure."""
        answer = await self._ask(method, path, body, headers={"Prefer": f"wait={_WAIT_S}", **match(version)})
        if answer.status != 202:
            return answer.body
        job, polls = parsed(Job, answer.body), 0
        while job.is_open:
            await asyncio.sleep(_POLL_S[min(polls, len(_POLL_S) - 1)])
            polls += 1
            job = await self._record(Job, "GET", f"/jobs/{job.id}")
            said = job.progress
            if said.get("total"):
                self._tell(str(said.get("note") or job.kind), int(said["done"]), int(said["total"]))
        if job.state is JobState.DONE or (undo and job.state is JobState.UNDONE):
            return job
        error = job.error or {}
        raise Failure(
            str(error.get("code", "refused")),
            str(error.get("message", "it failed")),
            detail=str(error.get("detail", "")),
            hint=str(error.get("hint", "")),
            job=job.id,
        )

    async def _ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        really: bool = False,
    ) -> Answer:
        """With `really` even where the client rehearses."""
        given = {key: value for key, value in (query or {}).items() if value is not None}
        rehearse = self._rehearse and method != "GET" and not really
        if rehearse:
            given["dry_run"] = "true"
        target = f"{self._base}/v1{path}" + (f"?{urlencode(given, doseq=True)}" if given else "")
        sent = {"Authorization": f"Bearer {self._token}", "Accept": "application/json", **(headers or {})}
        if method == "POST":
            # so that it may be sent again when nobody knows whether it arrived
            sent["Idempotency-Key"] = uuid.uuid4().hex
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        answer = await asyncio.to_thread(self._send, method, target, payload, sent)
        if answer.status >= 400:
            raise failure_of(answer)
        if rehearse and isinstance(answer.body, dict) and "sql" in answer.body:
            raise Rehearsed(list(answer.body["sql"]))
        return answer

    def _send(self, method: str, target: str, payload: bytes | None, headers: Mapping[str, str]) -> Answer:
        while True:
            kept = bool(self._idle)
            connection = self._idle.pop() if kept else self._connection()
            try:
                connection.request(method, target, payload, dict(headers))
                response = connection.getresponse()
                text = response.read()
            except (http.client.HTTPException, OSError) as error:
                connection.close()
                if kept:  # the server may have closed it while it was idle
                    continue
                raise self._unreachable(error) from None
            if response.will_close:
                connection.close()
            else:
                self._idle.append(connection)
            return _answer(response, text)

    @contextmanager
    def _streaming(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """An answer, or what is sent, that is too long to be held."""
        connection = self._connection()
        sent = {"Authorization": f"Bearer {self._token}", **(headers or {})}
        try:
            try:
                connection.request(method, f"{self._base}/v1{path}", body, sent)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it is refused before it was there; the answer says why
            response = connection.getresponse()
            if response.status >= 400:
                raise failure_of(_answer(response, response.read()))
            yield response
        except (http.client.HTTPException, OSError) as error:
            raise self._unreachable(error) from None
        finally:
            connection.close()

    def _unreachable(self, error: Exception) -> Failure:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Failure("unavailable", f"the API at {self._host} can't be reached: {reason}")

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout_s, context=self._tls
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)

    async def _job(
        self, path: str, body: Any = None, *, undo: bool = False, version: int | None = None
    ) -> Job:
        done = await self._work("POST", path, body, undo=undo, version=version)
        return done if isinstance(done, Job) else parsed(Job, done)


def match(version: int | None) -> dict[str, str]:
    """Headers by which what was changed meanwhile stays as it is."""
    return {} if version is None else {"If-Match": f'"{version}"'}


def failure_of(answer: Answer) -> Failure:
    """What a problem was before it was sent."""
    status, body = answer.status, answer.body if isinstance(answer.body, dict) else {}
    code = str(body.get("code", ""))
    if code not in CODES:
        code = {401: "forbidden", 404: "not_found"}.get(status, "unavailable" if status >= 500 else "invalid")
    job = body.get("job")
    return Failure(
        code,
        str(body.get("detail") or body.get("title") or f"HTTP {status}"),
        detail=str(body.get("explanation") or ""),
        hint=str(body.get("hint") or ""),
        job=job if isinstance(job, int) else None,
    )


def _answer(response: http.client.HTTPResponse, text: bytes) -> Answer:
    body: Any = None
    if text:
        try:
            body = json.loads(text)
        except ValueError:
            if response.status < 400:
                raise Failure("unavailable", "the answer is not one of the API") from None
    return Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, body)


def parsed(model: type[RecordT], value: Any) -> RecordT:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        place = ".".join(map(str, error.errors(include_input=False)[0]["loc"]))
        raise Failure(
            "outdated", f"the API answers otherwise than this version expects ({model.__name__}: {place})"
        ) from None


def given_of(record: Record) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude_none=True)


def part(name: str) -> str:
    return quote(name, safe="")


def of_tenant(name: str, rest: str = "") -> str:
    return f"/tenants/{part(name)}" + (f"/{rest}" if rest else "")

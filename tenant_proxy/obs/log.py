"""Structured logs: one event a line on stderr, as text for people or JSON for machines.

A log call is an event (a fixed lower-case sentence, so that it can be searched
for) and fields: `log.info("client connected", client=12, tenant="acme")`.  Names
of fields are shared: `worker`, `client`, `server`, `tenant`, `user`, `database`,
`addr`, `sqlstate`, `reason`; times end in `_s` or `_us`.

What is guaranteed whatever the caller passes: a line is one line (control
characters are escaped), its size is bounded, a field whose name says that it
is a secret is masked, and a failed write never reaches the caller.

`configure` may be called again at any time (a reload): loggers that exist
already follow the new level and format.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import MutableMapping
from typing import Any, ClassVar, cast

import structlog
from structlog.typing import FilteringBoundLogger

#: longest value of one field, in characters; what is cut off is counted
MAX_VALUE = 500
#: longest traceback, in characters (its end is kept: the error is there)
MAX_TRACEBACK = 8_000
MAX_FIELDS = 40

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50, "exception": 40}
_SECRET_WORDS = ("password", "passwd", "secret", "verifier", "token", "private_key", "credential")
_MASK = "***"
_NEEDS_QUOTES = re.compile('[ "=]')
#: fields that every line has
_OWN = frozenset(("event", "level", "part"))

Event = MutableMapping[str, Any]


class _Settings:
    """What `configure` set; read at each log call, so that a reload reaches all loggers."""

    threshold = _LEVELS["info"]
    as_json = False
    #: fields of every line of this process
    process: ClassVar[dict[str, Any]] = {}


def configure(level: str = "info", style: str = "text", **process_fields: Any) -> None:
    """Sets level ("debug" … "error"), style ("text" or "json") and the fields of this process.

    Also takes over the standard library's root logger, so that what asyncio and
    other packages say comes out in the same shape.
    """
    _Settings.threshold = _LEVELS[level]
    _Settings.as_json = style == "json"
    if process_fields:
        _Settings.process = process_fields
    if not structlog.is_configured():
        structlog.configure(
            processors=[_drop_below_threshold, _add_process, _bound_fields, _render],
            wrapper_class=structlog.make_filtering_bound_logger(0),
            logger_factory=_StderrFactory(),
            cache_logger_on_first_use=True,
        )
    root = logging.getLogger()
    root.setLevel(_Settings.threshold)
    if not any(isinstance(handler, _Bridge) for handler in root.handlers):
        root.addHandler(_Bridge())


def get_logger(part: str) -> FilteringBoundLogger:
    """A logger whose lines carry `part`, e.g. "supervisor", "relay"; bind more with `.bind(…)`."""
    return cast(FilteringBoundLogger, structlog.get_logger(part=part))


def enabled(level: str) -> bool:
    """Whether lines of this level are written: for fields that are costly to make."""
    return _LEVELS[level] >= _Settings.threshold


class _StderrLogger:
    """Writes a line with one write(2), so that lines of several processes do not mix."""

    def msg(self, line: str) -> None:
        try:
            os.write(sys.stderr.fileno(), line.encode("utf-8", "backslashreplace"))
        except (OSError, ValueError):
            pass  # nobody reads our log (any more); the service must not stop for that

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


class _StderrFactory:
    def __call__(self, *args: Any) -> _StderrLogger:
        return _StderrLogger()


class _Bridge(logging.Handler):
    """Carries records of the standard library's loggers over."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields: dict[str, Any] = {"part": record.name}
            if record.exc_info and record.exc_info[1]:
                fields["exc_info"] = record.exc_info[1]
            level = next((n for n in ("error", "warning", "info") if record.levelno >= _LEVELS[n]), "debug")
            getattr(structlog.get_logger(), level)(record.getMessage(), **fields)
        except Exception:
            self.handleError(record)


def _drop_below_threshold(logger: Any, method: str, event: Event) -> Event:
    if _LEVELS.get(method, 50) < _Settings.threshold:
        raise structlog.DropEvent
    event["level"] = "error" if method in ("exception", "critical") else method
    return event


def _add_process(logger: Any, method: str, event: Event) -> Event:
    for key, value in _Settings.process.items():
        event.setdefault(key, value)
    return event


def _bound_fields(logger: Any, method: str, event: Event) -> Event:
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    fields = [key for key in event if key not in _OWN]
    for key in fields[MAX_FIELDS:]:
        del event[key]
    if len(fields) > MAX_FIELDS:
        event["fields_dropped"] = len(fields) - MAX_FIELDS
    for key, value in event.items():
        event[key] = _MASK if _is_secret(key) else _bound(value)
    if isinstance(error, BaseException):
        text = "".join(traceback.format_exception(error))
        event["traceback"] = text if len(text) <= MAX_TRACEBACK else "…" + text[-MAX_TRACEBACK:]
    return event


@functools.lru_cache(maxsize=1024)
def _is_secret(key: str) -> bool:
    lower = key.lower()
    return any(word in lower for word in _SECRET_WORDS)


def _bound(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if type(value) is str and len(value) <= MAX_VALUE:
        return value
    if isinstance(value, bytes):
        text = value[: MAX_VALUE + 1].decode("utf-8", "backslashreplace")
    else:
        try:
            text = str(value)
        except Exception as problem:  # a field that can't be shown must not end what is logged
            text = f"<{type(value).__name__}: {type(problem).__name__}>"
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}… ({len(text)} characters)"


def _render(logger: Any, method: str, event: Event) -> str:
    now = time.time()
    text = event.pop("event", "")
    level = event.pop("level")
    if _Settings.as_json:
        stamp = f"{_utc_second(int(now))}.{int(now % 1 * 1000):03d}Z"
        line = {"time": stamp, "level": level, "event": text, **event}
        return json.dumps(line) + "\n"
    stamp = f"{_local_second(int(now))}.{int(now % 1 * 1000):03d}"
    trace = event.pop("traceback", None)
    part = event.pop("part", "")
    parts = [f"{stamp} {level.upper():<7} {_one_line(str(part))}: {_one_line(str(text))}"]
    parts += [f"{key}={_quoted(value)}" for key, value in event.items()]
    line_text = " ".join(parts) + "\n"
    if trace:
        line_text += "".join(f"    {_one_line(row)}\n" for row in trace.splitlines())
    return line_text


@functools.lru_cache(maxsize=2)
def _utc_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


@functools.lru_cache(maxsize=2)
def _local_second(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))


def _one_line(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _quoted(value: Any) -> str:
    text = _one_line(str(value))
    if text and not _NEEDS_QUOTES.search(text):
        return text
    return '"' + text.replace('"', '\\"') + '"'

"""Where a page ends: opaque to callers, so that what it is made of may change."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime

from tenant_proxy.catalog.failures import Failure


def _not_ours() -> Failure:
    return Failure("invalid", "the cursor is none that this API gave")


def cursor_of(last: str | int) -> str:
    return base64.urlsafe_b64encode(str(last).encode()).decode().rstrip("=")


def after(cursor: str | None) -> str:
    if cursor is None:
        return ""
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise _not_ours() from None


def cursor_of_two(first: str, second: str) -> str:
    """Of a list that is by two things."""
    return cursor_of(json.dumps([first, second], ensure_ascii=False, separators=(",", ":")))


def after_two(cursor: str | None) -> tuple[str, str]:
    text = after(cursor)
    if not text:
        return "", ""
    try:
        first, second = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise _not_ours() from None
    if not isinstance(first, str) or not isinstance(second, str):
        raise _not_ours()
    return first, second


def after_time(cursor: str | None) -> tuple[datetime, str] | None:
    first, second = after_two(cursor)
    if not first:
        return None
    try:
        time = datetime.fromisoformat(first)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise _not_ours()
    return time, second


def before(cursor: str | None) -> int | None:
    text = after(cursor)
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise _not_ours()
    return int(text)

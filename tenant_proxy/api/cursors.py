"""Where a page ends: opaque to callers, so that what it is made of may change."""

from __future__ import annotations

import base64
import binascii

from tenant_proxy.catalog.failures import Failure


def cursor_of(last: str | int) -> str:
    return base64.urlsafe_b64encode(str(last).encode()).decode().rstrip("=")


def after(cursor: str | None) -> str:
    if cursor is None:
        return ""
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise Failure("invalid", "the cursor is none that this API gave") from None


def before(cursor: str | None) -> int | None:
    text = after(cursor)
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Failure("invalid", "the cursor is none that this API gave")
    return int(text)

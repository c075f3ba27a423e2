"""AdminResult as messages of the simple query protocol (docs 53.2.3, 53.7)."""

from __future__ import annotations

import struct

from tenant_proxy.admin.context import INT4, INT8, AdminResult

_TYPE_SIZES = {INT4: 4, INT8: 8}


def result_messages(result: AdminResult) -> bytes:
    """RowDescription, DataRows and CommandComplete of every statement, without ReadyForQuery."""
    parts: list[bytes] = []
    following: AdminResult | None = result
    while following is not None:
        _write(parts, following)
        following = following.then
    return b"".join(parts)


def _write(parts: list[bytes], result: AdminResult) -> None:
    parts.extend(_notice(text) for text in result.notices)
    if not result.tag:
        parts.append(_message(b"I", b""))  # EmptyQueryResponse
        return
    if result.columns:
        parts.append(_row_description(result.columns))
        parts.extend(_data_row(row) for row in result.rows)
    parts.append(_message(b"C", _text(result.tag) + b"\0"))


def _notice(text: str) -> bytes:
    return _message(b"N", b"SNOTICE\0VNOTICE\0C00000\0M" + _text(text) + b"\0\0")


def _row_description(columns: list[tuple[str, int]]) -> bytes:
    body = [struct.pack("!H", len(columns))]
    for name, oid in columns:
        # no table, no column number; text format
        body.append(_text(name) + b"\0" + struct.pack("!IHIhih", 0, 0, oid, _TYPE_SIZES.get(oid, -1), -1, 0))
    return _message(b"T", b"".join(body))


def _data_row(row: list[str | None]) -> bytes:
    body = [struct.pack("!H", len(row))]
    for value in row:
        if value is None:
            body.append(b"\xff\xff\xff\xff")
        else:
            data = _text(value)
            body.append(struct.pack("!I", len(data)) + data)
    return _message(b"D", b"".join(body))


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def _text(value: str) -> bytes:
    return value.replace("\0", "?").encode("utf-8", "replace")

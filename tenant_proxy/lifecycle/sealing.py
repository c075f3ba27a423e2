"""Files encrypted with a pass phrase.

    8 bytes   magic, `TPSEAL01`
    1 byte    log2 of scrypt's n; r is 8 and p is 1
    16 bytes  salt
    7 bytes   nonce's beginning
    then chunks: 65,536 bytes of plain text (the last one fewer, perhaps none) by AES-256-GCM, each with
    its tag of 16 bytes behind

A chunk's nonce is the beginning, the chunk's number (4 bytes, big endian), and 1 for the last chunk or else
0; the header is its associated data.  So no chunk can be changed, left out, put elsewhere or cut off.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

MAGIC: Final = b"TPSEAL01"
CHUNK: Final = 65_536
_TAG: Final = 16
_HEADER: Final = len(MAGIC) + 1 + 16 + 7
_LOG_N: Final = 15
#: of files of others: more memory than 1 GiB is not spent on one
_MAX_LOG_N: Final = 20


class SealError(Exception):
    """The pass phrase is wrong, or the file is not what was written."""


def is_sealed(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def seal(plain: IO[bytes], sealed: IO[bytes], pass_phrase: str) -> None:
    header = MAGIC + bytes([_LOG_N]) + os.urandom(16) + os.urandom(7)
    cipher = _cipher(header, pass_phrase)
    sealed.write(header)
    number, chunk = 0, plain.read(CHUNK)
    while True:
        following = plain.read(CHUNK) if len(chunk) == CHUNK else b""
        sealed.write(cipher.encrypt(_nonce(header, number, not following), chunk, header))
        if not following:
            return
        number, chunk = number + 1, following


def unseal(sealed: IO[bytes], plain: IO[bytes], pass_phrase: str) -> None:
    """What was written to `plain` before a SealError is worth nothing."""
    for chunk in chunks(sealed, pass_phrase):
        plain.write(chunk)


def chunks(sealed: IO[bytes], pass_phrase: str) -> Iterator[bytes]:
    header = sealed.read(_HEADER)
    if len(header) < _HEADER or not header.startswith(MAGIC):
        raise SealError("this is no encrypted archive")
    if header[len(MAGIC)] > _MAX_LOG_N:
        raise SealError("the file's header asks for more memory than an honest one would")
    cipher = _cipher(header, pass_phrase)
    number, chunk = 0, sealed.read(CHUNK + _TAG)
    while True:
        following = sealed.read(CHUNK + _TAG)
        try:
            yield cipher.decrypt(_nonce(header, number, not following), chunk, header)
        except InvalidTag:
            raise SealError(
                "the pass phrase is wrong" if number == 0 else "the file was changed or cut off"
            ) from None
        if not following:
            return
        number, chunk = number + 1, following


def _cipher(header: bytes, pass_phrase: str) -> AESGCM:
    at = len(MAGIC)
    salt = header[at + 1 : at + 17]
    return AESGCM(Scrypt(salt=salt, length=32, n=1 << header[at], r=8, p=1).derive(pass_phrase.encode()))


def _nonce(header: bytes, number: int, last: bool) -> bytes:
    return header[-7:] + number.to_bytes(4, "big") + bytes([last])

"""A tenant's space: what its channels' names begin with on the server, and its lock keys are mixed with."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

#: characters of a space, each of [a-z2-7]: 65 bits
SPACE_CHARS: Final = 13
#: of the digest, that they are made of
_BYTES: Final = 10


def space_of(tenant: str, secret: str | None) -> str:
    """Not to be guessed without the secret; without one the name alone decides."""
    digest = hmac.digest((secret or "").encode(), b"tenant_proxy space " + tenant.encode(), hashlib.sha256)
    return base64.b32encode(digest[:_BYTES]).decode().lower()[:SPACE_CHARS]

"""SHA-256, HMAC and base64 of the compiled login: published vectors, and the standard library on anything."""

import base64
import binascii
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_proxy.auth import digest


# FIPS 180-4's examples (NIST, SHA256.pdf), and its million letters
@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (b"a" * 1_000_000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ],
)
def test_sha256_of_nist_examples(message, expected):
    assert digest.sha256(message).hex() == expected


# RFC 4231
@pytest.mark.parametrize(
    ("key", "message", "expected"),
    [
        (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (b"\xaa" * 20, b"\xdd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (
            b"\xaa" * 131,
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
    ],
)
def test_hmac_of_rfc_examples(key, message, expected):
    assert digest.hmac_sha256(key, message).hex() == expected


@given(st.lists(st.binary(max_size=150), max_size=5), st.binary(max_size=150))
def test_pieces_are_hashed_as_the_whole(parts, key):
    assert digest.sha256(*parts) == hashlib.sha256(b"".join(parts)).digest()
    assert digest.hmac_sha256(key, *parts) == hmac.digest(key, b"".join(parts), "sha256")


@pytest.mark.parametrize("size", range(50, 135))
def test_every_place_in_a_block_is_padded(size):
    message = bytes(range(256))[:size]
    assert digest.sha256(message) == hashlib.sha256(message).digest()


@given(st.binary(max_size=100))
def test_base64(data):
    assert digest.encode(data) == base64.b64encode(data)


@given(st.binary(min_size=32, max_size=32))
def test_a_digest_in_base64_is_read(data):
    assert digest.decode_digest(base64.b64encode(data)) == data


@given(st.binary(min_size=32, max_size=32), st.integers(0, 43), st.binary(min_size=1, max_size=1))
def test_one_spelling_of_a_digest_is_taken(data, at, other):
    """What is taken means what the standard library reads, and is what it would have written."""
    text = bytearray(base64.b64encode(data))
    text[at : at + 1] = other
    found = digest.decode_digest(bytes(text))
    try:
        wanted = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        wanted = None
    if wanted is not None and len(wanted) == 32 and base64.b64encode(wanted) == bytes(text):
        assert found == wanted
    else:
        assert found is None
    assert digest.decode_digest(bytes(text[:-1])) is None

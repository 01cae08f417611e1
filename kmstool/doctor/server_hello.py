"""Which group a TLS 1.3 server chose, from the bytes that it sent (RFC 8446, sections 4.1.3, 5.1).

Python's `ssl` cannot tell before 3.15, and the hybrid of X25519 and ML-KEM is worth telling: what
is recorded of a session without it can be opened by whoever has a quantum computer one day. The
ServerHello is in the clear. Nothing here is trusted: whether the handshake is genuine is decided
by the TLS library, which has read the same bytes.
"""

from typing import Final

from kmstool.errors import TransportError

# IANA, TLS Supported Groups.
GROUPS: Final = {
    23: "secp256r1",
    24: "secp384r1",
    25: "secp521r1",
    29: "x25519",
    30: "x448",
    4587: "SecP256r1MLKEM768",
    4588: "X25519MLKEM768",
    4589: "SecP384r1MLKEM1024",
}
HYBRID: Final = frozenset({4587, 4588, 4589})
RECEIVED_MAX: Final = 65_536  # bytes of one server's side of a handshake; KMS' has about 5 KiB

_HANDSHAKE: Final = 22
_CHANGE_CIPHER_SPEC: Final = 20
_SERVER_HELLO: Final = 2
_KEY_SHARE: Final = 51
# RFC 8446, 4.1.3: the random of a HelloRetryRequest, SHA-256 of "HelloRetryRequest".
_RETRY: Final = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


def parse_group(data: bytes) -> int:
    """The group in the key share of the ServerHello.

    Args:
        data: what a server sent from the start of its stream, at most `RECEIVED_MAX` bytes.

    Raises:
        TransportError: there is none, or the bytes are not what RFC 8446 has there.
    """
    if len(data) > RECEIVED_MAX:
        raise _malformed()
    messages = _Reader(_clear_handshake(data))
    while not messages.at_end:
        kind = messages.number(1)
        body = messages.take(messages.number(3))
        if kind == _SERVER_HELLO and body[2:34] != _RETRY:
            return _group_of(_Reader(body))
    raise TransportError("the server's handshake has no ServerHello")


def _clear_handshake(data: bytes) -> bytes:
    """The handshake messages before encryption begins; records are at most 2^14 bytes (5.1)."""
    records = _Reader(data)
    found = bytearray()
    while not records.at_end:
        kind = records.number(1)
        records.take(2)  # the version, which means nothing (5.1)
        length = records.number(2)
        if kind not in (_HANDSHAKE, _CHANGE_CIPHER_SPEC):
            break
        payload = records.take(length)
        if kind == _HANDSHAKE:
            found += payload
    return bytes(found)


def _group_of(hello: "_Reader") -> int:
    hello.take(2 + 32)  # legacy_version, random
    hello.take(hello.number(1))  # legacy_session_id_echo
    hello.take(2 + 1)  # cipher_suite, legacy_compression_method
    extensions = _Reader(hello.take(hello.number(2)))
    while not extensions.at_end:
        kind = extensions.number(2)
        content = _Reader(extensions.take(extensions.number(2)))
        if kind == _KEY_SHARE:
            return content.number(2)
    raise TransportError("the ServerHello has no key share")


class _Reader:
    """Takes bytes from the front, never more than there are."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def at_end(self) -> bool:
        return self._position == len(self._data)

    def take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._data):
            raise _malformed()
        piece = self._data[self._position : end]
        self._position = end
        return piece

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")


def _malformed() -> TransportError:
    return TransportError("the server's handshake is malformed")

"""Fuzzes frames and the messages in them, as either side would read them."""

import io

from kmstool.errors import CredentialsError, InputError
from kmstool.framing import (
    build_credentials_answer,
    build_credentials_request,
    build_error_answer,
    build_frame,
    parse_credentials_answer,
    parse_credentials_request,
    read_frame,
)
from kmstool.limits import FRAME_MAX

SEEDS: list[bytes] = [
    build_credentials_request(),
    build_credentials_answer(
        access_key_id="AKIAIOSFODNN7EXAMPLE",
        secret_access_key="secret",
        session_token="token",
        expiration="2999-01-01T00:00:00Z",
    ),
    build_error_answer("NotAvailable", "no role\x1b[2J"),
    build_frame({"a": [1, 2.5, None, {"b": "\u2028"}]}),
]


def target(data: bytes) -> None:
    stream = io.BytesIO(data)
    try:
        message = read_frame(stream.read)
    except InputError as error:
        check_text(str(error))
        return
    assert stream.tell() == 4 + int.from_bytes(data[:4], "big") <= 4 + FRAME_MAX
    assert isinstance(message, dict)
    try:
        parse_credentials_request(message)
    except InputError as error:
        check_text(str(error))
    else:
        assert message == {"Version": 1, "Request": "Credentials"}
    try:
        assert parse_credentials_answer(message) is message
    except CredentialsError as error:
        check_text(str(error))


def check_text(text: str) -> None:
    assert text.isprintable()
    assert len(text) < 600

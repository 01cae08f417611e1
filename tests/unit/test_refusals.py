"""kmstool/refusals.py: every body of a refusal is read, and none steers a terminal."""

import json

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from hypothesis import given
from hypothesis import strategies as st

from kmstool.limits import HTTP_BODY_MAX, HTTP_MESSAGE_PRINT_MAX
from kmstool.protocol import Operation
from kmstool.refusals import HINTS, RETRYABLE_CODES, parse_error

MODEL = ServiceModel(Loader().load_service_model("kms", "service-2"), "kms")


def body(code: str, message: str = "no", **more: str) -> bytes:
    return json.dumps({"__type": code, "message": message} | more).encode()


def test_every_error_of_the_five_operations_has_a_hint() -> None:
    codes = {
        shape.name
        for operation in Operation
        for shape in MODEL.operation_model(operation.value).error_shapes
    }
    assert len(codes) > 10
    # The caller of a dry run treats this one as success.
    assert codes - set(HINTS) == {"DryRunOperationException"}


@pytest.mark.parametrize("code", HINTS)
def test_hints_are_one_plain_sentence(code: str) -> None:
    error = parse_error(Operation.DECRYPT, 400, {}, body(code))
    assert error.hint == HINTS[code]
    assert not HINTS[code].endswith(".")
    assert HINTS[code].isprintable()
    assert "  " not in HINTS[code]


@pytest.mark.parametrize(
    ("type_", "header", "code"),
    [
        ("NotFoundException", None, "NotFoundException"),
        ("com.amazonaws.kms#NotFoundException", None, "NotFoundException"),
        ("com.amazonaws.kms#NotFoundException:http://x/", None, "NotFoundException"),
        ("NotFoundException:http://x#y", None, "NotFoundException"),
        (None, "AccessDeniedException", "AccessDeniedException"),
        (None, "AccessDeniedException:http://x/", "AccessDeniedException"),
        ("DisabledException", "AccessDeniedException", "DisabledException"),
        ("\x1b[31mred", "AccessDeniedException", "AccessDeniedException"),
        ("\x1b[31mred", None, "HTTP400"),
        ("x" * 129, None, "HTTP400"),
        ("", "", "HTTP400"),
    ],
)
def test_code(type_: str | None, header: str | None, code: str) -> None:
    headers = {} if header is None else {"x-amzn-errortype": header}
    content = b"{}" if type_ is None else body(type_)
    assert parse_error(Operation.DECRYPT, 400, headers, content).code == code


def test_the_fields() -> None:
    error = parse_error(
        Operation.GENERATE_DATA_KEY,
        400,
        {"x-amzn-requestid": "0a1b2c3d-0000"},
        body("DisabledException", "the key is disabled"),
    )
    assert str(error) == "KMS refused GenerateDataKey: DisabledException: the key is disabled"
    assert error.operation == "GenerateDataKey"
    assert type(error.operation) is str
    assert error.status == 400
    assert error.kms_message == "the key is disabled"
    assert error.request_id == "0a1b2c3d-0000"
    assert not error.retryable


def test_a_capital_message_is_read_too() -> None:
    content = b'{"__type": "AccessDeniedException", "Message": "not authorized"}'
    assert parse_error(Operation.DECRYPT, 400, {}, content).kms_message == "not authorized"


@pytest.mark.parametrize("value", ["", "a b", "\x1b[31m", "x" * 129, "ä", "a\n"])
def test_a_request_id_that_is_none(value: str) -> None:
    headers = {"x-amzn-requestid": value}
    assert parse_error(Operation.DECRYPT, 400, headers, b"").request_id is None


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (500, "KMSInternalException", True),
        (503, "DependencyTimeoutException", True),
        (500, "KeyUnavailableException", True),
        (400, "ThrottlingException", True),
        (503, "", True),
        (500, "", True),
        (499, "", False),
        (400, "", False),
        (400, "AccessDeniedException", False),
        (400, "InvalidCiphertextException", False),
        (400, "IncorrectKeyException", False),
        (400, "ExpiredTokenException", False),
        (400, "InvalidSignatureException", False),
        (400, "ValidationException", False),
        (400, "NotFoundException", False),
        (400, "DisabledException", False),
        (400, "KMSInvalidStateException", False),
        (400, "DryRunOperationException", False),
        (400, "LimitExceededException", False),
    ],
)
def test_retryable(status: int, code: str, retryable: bool) -> None:
    assert parse_error(Operation.DECRYPT, status, {}, body(code)).retryable is retryable


def test_retryable_codes_are_those_of_the_documentation() -> None:
    assert {
        "KMSInternalException",
        "DependencyTimeoutException",
        "KeyUnavailableException",
        "ThrottlingException",
    } == RETRYABLE_CODES


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"<html><body>\x1b]0;title\x07Service Unavailable</body></html>",
        b"[]",
        b"null",
        b'{"__type": 5, "message": {"a": 1}}',
        b'{"__type": null, "message": null}',
        b'{"__type": "NotFoundException", "__type": "x"}',
        b"[" * 100_000,
        b"x" * (HTTP_BODY_MAX + 1),
    ],
)
def test_any_body_gives_an_error(content: bytes) -> None:
    error = parse_error(Operation.DECRYPT, 503, {}, content)
    assert error.code == "HTTP503"
    assert error.kms_message == ""
    assert str(error) == "KMS refused Decrypt: HTTP503"
    assert error.hint is None


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        ("two\nlines\r\n and\ttabs", "two lines and tabs"),
        ("\x1b[31mred\x1b[0m", "?[31mred?[0m"),
        ("\x9b31m", "?31m"),
        ("a\x00b\x07", "a?b?"),
        ("\u202eevil\u2066", "?evil?"),
        ("line\u2028separator", "line separator"),
        ("\ud800", "?"),
        ("Schlüssel ☃", "Schlüssel ☃"),
    ],
)
def test_messages_are_one_printable_line(message: str, printed: str) -> None:
    error = parse_error(Operation.DECRYPT, 400, {}, body("ValidationException", message))
    assert error.kms_message == printed


def test_a_message_of_the_largest_size_is_not_cut() -> None:
    error = parse_error(Operation.DECRYPT, 400, {}, body("X", "x" * HTTP_MESSAGE_PRINT_MAX))
    assert error.kms_message == "x" * HTTP_MESSAGE_PRINT_MAX


def test_a_huge_message_is_cut() -> None:
    error = parse_error(Operation.DECRYPT, 400, {}, body("ValidationException", "x" * 100_000))
    assert len(error.kms_message) == HTTP_MESSAGE_PRINT_MAX
    assert error.kms_message.endswith("…")


@given(st.text(), st.text(), st.text(), st.integers(300, 599))
def test_whatever_comes_is_printable(code: str, message: str, header: str, status: int) -> None:
    headers = {"x-amzn-errortype": header, "x-amzn-requestid": header}
    error = parse_error(Operation.DECRYPT, status, headers, body(code, message))
    for text in (str(error), error.code, error.kms_message, error.request_id or "-"):
        assert text.isprintable()

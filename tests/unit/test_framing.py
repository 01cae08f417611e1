"""Frames and credentials messages against docs/formats/framing.md and its vectors."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import ProcessProvider

from kmstool import framing
from kmstool.enclave.credentials import credentials_from_message
from kmstool.errors import CredentialsError, InputError, TransportError, UntrustedAnswerError
from kmstool.limits import FRAME_MAX, SESSION_TOKEN_MAX
from kmstool.parent.request import parse_relayed_call
from kmstool.refusals import parse_error

TESTS = Path(__file__).resolve().parents[1]
VECTORS: list[dict[str, Any]] = json.loads((TESTS / "vectors" / "framing.json").read_text())
SPECIFICATION = TESTS.parent / "docs" / "formats" / "framing.md"


def stream(data: bytes, step: int) -> Callable[[int], bytes]:
    """A `recv` that gives at most `step` bytes at a time."""
    rest = bytearray(data)

    def recv(count: int) -> bytes:
        assert count > 0
        piece = bytes(rest[: min(count, step)])
        del rest[: len(piece)]
        return piece

    return recv


def read(vector: dict[str, Any], step: int) -> dict[str, Any] | None:
    message = framing.read_frame(stream(bytes.fromhex(vector["bytes"]), step))
    if vector["reader"] == "request":
        framing.parse_credentials_request(message)
        return None
    found = credentials_from_message(framing.parse_credentials_answer(message))
    return {
        "AccessKeyId": found.access_key_id,
        "SecretAccessKey": found.secret_access_key,
        "SessionToken": found.session_token,
        "Expiration": found.expiration,
    }


CREDENTIALS = [vector for vector in VECTORS if vector["reader"] in ("request", "answer")]
RELAY = [vector for vector in VECTORS if vector not in CREDENTIALS]


@pytest.mark.parametrize("vector", CREDENTIALS, ids=lambda vector: vector["name"])
def test_vector(vector: dict[str, Any]) -> None:
    for step in (1, FRAME_MAX + 4):
        if vector["expect"] == "ok":
            expected = vector.get("credentials")
            if expected and expected["Expiration"]:
                expected = expected | {"Expiration": datetime.fromisoformat(expected["Expiration"])}
            assert read(vector, step) == expected
            continue
        with pytest.raises((InputError, CredentialsError)) as caught:
            read(vector, step)
        rule = {
            "frame": r"a frame\b",
            "message": r"the request|credentials|the (access key id|secret|session)",
            "error": "the parent gave no credentials",
        }[vector["expect"]]
        assert re.search(rule, str(caught.value))
        assert (vector["expect"] == "frame") == ("frame" in str(caught.value))
        assert (vector["expect"] == "error") == ("gave no credentials" in str(caught.value))
        assert str(caught.value).isprintable()
        assert "wJalr" not in repr(caught.value) + str(caught.value.hint)


@pytest.mark.parametrize("vector", RELAY, ids=lambda vector: vector["name"])
def test_relay_vector(vector: dict[str, Any]) -> None:
    data, expect = bytes.fromhex(vector["bytes"]), vector["expect"]
    if expect == "frame":
        with pytest.raises(InputError, match=r"a frame\b"):
            framing.read_frame(stream(data, 7))
        return
    message = framing.read_frame(stream(data, 7))
    if vector["reader"] == "relay-request":
        if expect == "ok":
            call = parse_relayed_call(message)
            assert vector["call"] == {"Operation": call.operation, "KeyId": str(call.key)}
            return
        with pytest.raises(InputError) as caught:
            parse_relayed_call(message)
        assert str(caught.value).isprintable()
    elif expect in ("ok", "kms"):
        answer, refusal = framing.parse_relay_answer(message)
        if refusal is None:
            assert answer == vector["answer"]
            return
        error = parse_error("Decrypt", *refusal)
        fields = [error.code, error.status, error.kms_message, error.request_id, error.retryable]
        assert fields == vector["refusal"]
    elif expect == "error":
        with pytest.raises(TransportError, match="the relay did not ask KMS") as refused:
            framing.parse_relay_answer(message)
        assert refused.value.retryable is vector["retryable"]
    else:
        with pytest.raises(UntrustedAnswerError, match="the relay"):
            framing.parse_relay_answer(message)


def test_what_is_built_is_what_is_read() -> None:
    request = framing.build_relay_request("Decrypt", "eu-west-1", {"KeyId": "x"})
    parsed = framing.parse_relay_request(framing.read_frame(stream(request, 9)))
    assert parsed == ("Decrypt", "eu-west-1", {"KeyId": "x"})
    answer = framing.build_relay_answer({"KeyId": "x"})
    assert framing.parse_relay_answer(framing.read_frame(stream(answer, 9))) == (
        {"KeyId": "x"},
        None,
    )
    refusal = framing.build_relay_refusal(status=400, code="X", message="m", request_id=None)
    _, read_back = framing.parse_relay_answer(framing.read_frame(stream(refusal, 9)))
    assert read_back == (400, {}, b'{"__type": "X", "message": "m"}')


def test_the_examples_of_the_specification_are_read() -> None:
    examples = [
        json.loads(text)
        for text in re.findall(r"```json\n(.*?)```", SPECIFICATION.read_text(), re.DOTALL)
    ]
    (request,) = (one for one in examples if one.get("Request") == "Kms")
    assert parse_relayed_call(request).operation == "Decrypt"
    (answer,) = (one for one in examples if "Answer" in one)
    assert framing.parse_relay_answer(answer)[0] == answer["Answer"]
    (error,) = (one for one in examples if "KmsError" in one)
    assert framing.parse_relay_answer(error)[1] is not None


def test_the_vectors_show_every_outcome_on_both_sides() -> None:
    shown = {(vector["reader"], vector["expect"]) for vector in VECTORS}
    assert shown == {
        *(("request", expect) for expect in ("ok", "frame", "message")),
        *(("answer", expect) for expect in ("ok", "frame", "message", "error")),
        *(("relay-request", expect) for expect in ("ok", "frame", "message")),
        *(("relay-answer", expect) for expect in ("ok", "frame", "message", "error", "kms")),
    }
    assert len({vector["name"] for vector in VECTORS}) == len(VECTORS)


def test_the_example_of_the_specification_is_the_request() -> None:
    (dump,) = re.findall(r"```\n(00 00 00 25.*?)```", SPECIFICATION.read_text(), re.DOTALL)
    on_the_wire = "".join(re.sub(r" {3,}\S+$", "", line) for line in dump.strip().splitlines())
    assert bytes.fromhex(on_the_wire) == framing.build_credentials_request()


def test_the_specification_names_the_limits() -> None:
    text = SPECIFICATION.read_text()
    assert f"{FRAME_MAX:,}" in text
    assert f"{SESSION_TOKEN_MAX:,}" in text


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_frames_follow_one_another(step: int) -> None:
    recv = stream(framing.build_frame({"n": 1}) + framing.build_frame({"n": 2}), step)
    assert framing.read_frame(recv) == {"n": 1}
    assert framing.read_frame(recv) == {"n": 2}


@pytest.mark.parametrize("length", [0, FRAME_MAX + 1, 0xFFFFFFFF])
def test_a_length_out_of_bounds_is_refused_before_anything_is_read(length: int) -> None:
    recv = stream(length.to_bytes(4, "big") + b"{}", 1000)
    with pytest.raises(InputError, match=f"announces {length} bytes"):
        framing.read_frame(recv)
    assert recv(10) == b"{}"


def test_largest_frame() -> None:
    message = {"a": "b" * (FRAME_MAX - 8)}
    frame = framing.build_frame(message)
    assert len(frame) == 4 + FRAME_MAX
    assert framing.read_frame(stream(frame, 1000)) == message
    with pytest.raises(InputError, match="does not fit"):
        framing.build_frame({"a": "b" * (FRAME_MAX - 7)})


def test_what_recv_raises_passes_through() -> None:
    def recv(_count: int) -> bytes:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        framing.read_frame(recv)


def test_answer_is_what_a_credential_process_prints(tmp_path: Path) -> None:
    """The oracle is botocore, given the payload as the output of a `credential_process`."""
    frame = framing.build_credentials_answer(
        access_key_id="AKIAIOSFODNN7EXAMPLE",
        secret_access_key="secret/+=",
        session_token="token/+=",
        expiration="2999-01-01T00:00:00Z",
    )
    (tmp_path / "payload").write_bytes(frame[4:])
    provider = ProcessProvider(
        "default",
        lambda: {"profiles": {"default": {"credential_process": f"cat {tmp_path}/payload"}}},
    )
    found = provider.load()
    assert found is not None
    assert found.get_frozen_credentials()[:3] == (
        "AKIAIOSFODNN7EXAMPLE",
        "secret/+=",
        "token/+=",
    )
    ours = credentials_from_message(
        framing.parse_credentials_answer(framing.read_frame(stream(frame, 1000)))
    )
    assert ours.secret_access_key == "secret/+="
    assert ours.session_token == "token/+="
    assert ours.expiration == datetime(2999, 1, 1, tzinfo=UTC)


def test_answer_without_the_optional_members() -> None:
    frame = framing.build_credentials_answer(access_key_id="A", secret_access_key="s")
    assert json.loads(frame[4:]) == {"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "s"}


def test_error_answer_is_shown_and_cut() -> None:
    message = framing.read_frame(stream(framing.build_error_answer("Refused", "x" * 5000), 1000))
    with pytest.raises(CredentialsError, match=r"Refused: x+…$") as caught:
        framing.parse_credentials_answer(message)
    assert len(str(caught.value)) < 300
    assert "kmstool parent credentials" in (caught.value.hint or "")


def test_length_that_is_no_length_gives_a_hint() -> None:
    with pytest.raises(InputError) as caught:
        framing.read_frame(stream(b"HTTP/1.1 400 Bad Request\r\n", 100))
    assert "another protocol" in (caught.value.hint or "")

"""The front door: order of the checks, unknown targets, and a bug of the emulator."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import botocore.credentials
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from kmstool.emulator import kms as module
from kmstool.emulator.authentication import HttpRequest
from kmstool.emulator.kms import Kms, Record
from kmstool.emulator.principals import (
    ADMIN_ARN,
    Principal,
    Principals,
    collect_principals,
    default_principals,
)
from kmstool.emulator.server import HttpAnswer
from kmstool.emulator.store import Store
from kmstool.enclave.credentials import Credentials
from kmstool.enclave.sigv4 import sign

PRINCIPALS = default_principals()
ADMIN = PRINCIPALS.named(ADMIN_ARN)


class Door:
    """A KMS without a server, and requests that somebody signed."""

    def __init__(self, principals: Principals = PRINCIPALS) -> None:
        self.log: list[str] = []
        self.kms = Kms(
            principals=principals,
            store=Store(),
            region="eu-west-1",
            root_der=b"",
            report=self.log.append,
        )

    def ask(
        self,
        target: str,
        body: bytes = b"{}",
        *,
        path: str = "/",
        by: Principal = ADMIN,
        **changes: str,
    ) -> tuple[HttpAnswer, dict[str, Any]]:
        headers = sign(
            host="localhost",
            region="eu-west-1",
            target=target,
            body=body,
            credentials=Credentials(by.access_key_id, by.secret_access_key, None, None),
            now=datetime.now(UTC),
        )
        lowered = {name.lower(): value for name, value in headers.items()}
        lowered |= {name.replace("_", "-"): value for name, value in changes.items()}
        answer = self.kms.handle(HttpRequest("POST", path, lowered, body))
        return answer, json.loads(answer.body)


@pytest.fixture
def door() -> Door:
    return Door()


def test_an_answer(door: Door) -> None:
    answer, body = door.ask("TrentService.ListKeys")
    assert answer.status == 200
    assert body == {"Keys": [], "Truncated": False}
    headers = dict(answer.headers)
    assert headers["content-type"] == "application/x-amz-json-1.1"
    assert len(headers["x-amzn-requestid"]) == 36
    assert headers["date"].endswith(" GMT")


def test_an_error(door: Door) -> None:
    answer, body = door.ask("TrentService.DescribeKey", b'{"KeyId":"alias/none"}')
    assert answer.status == 400
    assert body["__type"] == "NotFoundException"
    assert "alias/none" in body["message"]
    assert dict(answer.headers)["x-amzn-errortype"] == "NotFoundException"


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("TrentService.Nonsense", "UnknownOperationException"),
        ("ListKeys", "UnknownOperationException"),
        ("OtherService.ListKeys", "UnknownOperationException"),
        ("TrentService.", "UnknownOperationException"),
        ("TrentService.Sign", "UnsupportedOperationException"),
        ("TrentService.RevokeGrant", "UnsupportedOperationException"),
    ],
)
def test_targets(door: Door, target: str, code: str) -> None:
    assert door.ask(target)[1]["__type"] == code


@pytest.mark.parametrize(
    "unknown",
    [("2a8648ce3d0201", "2a8648ce3d0209"), ("2a8648ce3d030107", "2a8648ce3d030177")],
    ids=["algorithm", "curve"],
)
def test_a_peer_key_of_an_unknown_kind_is_the_clients_mistake(
    door: Door, unknown: tuple[str, str]
) -> None:
    # It came out as a bug of the emulator, with 500, so that clients tried again and again.
    right, wrong = map(bytes.fromhex, unknown)
    made = door.ask(
        "TrentService.CreateKey", b'{"KeySpec":"ECC_NIST_P256","KeyUsage":"KEY_AGREEMENT"}'
    )[1]
    key_id = made["KeyMetadata"]["KeyId"]
    public = door.ask("TrentService.GetPublicKey", json.dumps({"KeyId": key_id}).encode())[1]
    peer = base64.b64decode(public["PublicKey"]).replace(right, wrong)
    question = {
        "KeyId": key_id,
        "KeyAgreementAlgorithm": "ECDH",
        "PublicKey": base64.b64encode(peer).decode(),
    }
    answer, body = door.ask("TrentService.DeriveSharedSecret", json.dumps(question).encode())
    assert (answer.status, body["__type"]) == (400, "ValidationException")


ADMINISTRATION: dict[str, dict[str, object]] = {
    "CancelKeyDeletion": {},
    "DisableKey": {},
    "EnableKey": {},
    "GetKeyPolicy": {},
    "ListKeyPolicies": {},
    "PutKeyPolicy": {"Policy": "{}"},
    "ScheduleKeyDeletion": {},
}


@pytest.mark.parametrize("operation", ADMINISTRATION)
def test_no_account_administers_the_keys_of_another(operation: str) -> None:
    # KMS API reference, "Cross-account use: No". A key policy that grants it has no effect there,
    # and here it let another account put a new policy.
    stranger = Principal(
        access_key_id="AKIA0000000000000002",
        secret_access_key="b" * 40,
        arn="arn:aws:iam::444455556666:role/other",
        iam_allows=("kms:*",),
    )
    door = Door(collect_principals([ADMIN, stranger]))
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": [ADMIN.arn, stranger.arn]},
        "Action": "kms:*",
        "Resource": "*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": statement})
    made = door.ask("TrentService.CreateKey", json.dumps({"Policy": policy}).encode())[1]
    arn = made["KeyMetadata"]["Arn"]
    question = json.dumps({"KeyId": arn, **ADMINISTRATION[operation]}).encode()
    answer, body = door.ask(f"TrentService.{operation}", question, by=stranger)
    assert (answer.status, body["__type"]) == (400, "AccessDeniedException")
    assert "another account" in body["message"]
    described = door.ask(
        "TrentService.DescribeKey", json.dumps({"KeyId": arn}).encode(), by=stranger
    )
    assert described[0].status == 200


def test_paths_and_content_types(door: Door) -> None:
    unknown = "UnknownOperationException"
    assert door.ask("TrentService.ListKeys", path="/x")[1]["__type"] == unknown
    assert door.ask("TrentService.ListKeys", path="/?a=b")[1]["__type"] == unknown


def test_another_content_type(door: Door) -> None:
    request = AWSRequest(
        method="POST",
        url="https://localhost/",
        data=b"{}",
        headers={
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": "TrentService.ListKeys",
        },
    )
    credentials = botocore.credentials.Credentials(ADMIN.access_key_id, ADMIN.secret_access_key)
    SigV4Auth(credentials, "kms", "eu-west-1").add_auth(request)
    headers = {name.lower(): value for name, value in request.headers.items()}
    answer = door.kms.handle(HttpRequest("POST", "/", {"host": "localhost"} | headers, b"{}"))
    assert json.loads(answer.body)["__type"] == "UnknownOperationException"


def test_the_signature_is_looked_at_first(door: Door) -> None:
    for target in ("TrentService.Nonsense", "TrentService.DescribeKey"):
        answer, body = door.ask(target, b"not json", authorization="")
        assert body["__type"] == "MissingAuthenticationTokenException"
        assert answer.status == 400
        _, body = door.ask(target, b"not json", x_amz_target="TrentService.ListKeys")
        assert body["__type"] == "InvalidSignatureException"


def test_a_bug_becomes_an_internal_error_without_its_text(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_call: object) -> dict[str, Any]:
        raise RuntimeError("with a s3cret in it")

    monkeypatch.setitem(module.OPERATIONS, "ListKeys", broken)
    answer, body = door.ask("TrentService.ListKeys")
    assert answer.status == 500
    assert body["__type"] == "KMSInternalException"
    assert "RuntimeError in broken" in door.log[-1]
    assert "s3cret" not in door.log[-1] + answer.body.decode()


def test_statuses(door: Door) -> None:
    _, body = door.ask("TrentService.CreateKey")
    request = {"KeyId": body["KeyMetadata"]["KeyId"], "KeySpec": "AES_256", "DryRun": True}
    answer, body = door.ask("TrentService.GenerateDataKey", json.dumps(request).encode())
    assert (answer.status, body["__type"]) == (400, "DryRunOperationException")


def test_a_log_line_is_printable() -> None:
    line = Record("id", operation="\x1b[31mX\n", detail="a\u202eb").line()
    assert line.isprintable()
    assert "?[31mX?" in line

"""Fuzzes the credentials' JSON; whatever is accepted must be fit for a header line."""

import json
from datetime import UTC, datetime

from kmstool.enclave.credentials import Credentials, parse_credentials
from kmstool.enclave.sigv4 import sign
from kmstool.errors import CredentialsError

KEYS = {"Version": 1, "AccessKeyId": "AKIAEXAMPLE", "SecretAccessKey": "s/+="}
SEEDS: list[bytes] = [
    json.dumps(KEYS).encode(),
    json.dumps(KEYS | {"SessionToken": "t/+=", "Expiration": "2999-12-31T23:59:59Z"}).encode(),
    json.dumps(KEYS | {"SessionToken": None, "Expiration": "2020-01-01T00:00:00+02:00"}).encode(),
]


def target(data: bytes) -> None:
    try:
        credentials = parse_credentials(data)
    except CredentialsError as error:
        assert str(error).isprintable()  # noqa: PT017 - the message is what is fuzzed
        return
    check(credentials)


def check(credentials: Credentials) -> None:
    now = datetime.now(UTC)
    headers = sign(
        host="localhost",
        region="eu-west-1",
        target="TrentService.Decrypt",
        body=b"",
        credentials=credentials,
        now=now,
    )
    for value in headers.values():
        assert value.isascii()
        assert value.isprintable()
    # A short secret may stand in the rest of the text by chance.
    if len(credentials.secret_access_key) > 16:
        assert credentials.secret_access_key not in repr(credentials)
    if credentials.expiration is not None:
        assert credentials.expiration.timestamp() > now.timestamp() - 60

"""The emulator: ready time as a whole process, and attested Decrypts a second, client included."""

import contextlib
import json
import os
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import botocore.session
from report import Row, at_least, at_most, figure, main

from kmstool import limits
from kmstool.arn import parse_key_arn
from kmstool.attestation.chain import ChainCache
from kmstool.emulator.attested import RANDOM_SHAPE, attest
from kmstool.emulator.authentication import HttpRequest, authenticate
from kmstool.emulator.authorisation import authorise_key
from kmstool.emulator.ciphertext import open_blob, seal_blob
from kmstool.emulator.keys import Key
from kmstool.emulator.nsm import SimulatedNsm
from kmstool.emulator.pcrs import label_pcrs
from kmstool.emulator.principals import (
    ADMIN_ARN,
    ENCLAVE_ARN,
    collect_principals,
    default_principals,
)
from kmstool.emulator.signer import SigningChain
from kmstool.emulator.validation import load_service_model, write_answer
from kmstool.enclave.credentials import Credentials
from kmstool.enclave.nsm import Nsm
from kmstool.enclave.recipient import Recipient
from kmstool.enclave.results import Decrypted
from kmstool.enclave.sigv4 import sign
from kmstool.protocol import Recipient as RecipientMember
from kmstool.protocol import build_decrypt
from kmstool.session import SessionOptions, open_direct

KMSTOOL = Path(sys.executable).with_name("kmstool")
STARTS = 11
DECRYPTS = 1500
FRESH_KEYS = 60
SECRET = b"k" * 32
CONTEXT = {"purpose": "benchmark"}
PCR_CONDITIONS = {
    f"kms:RecipientAttestation:PCR{index}": value.hex() for index, value in label_pcrs().items()
}
POLICY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": ADMIN_ARN},
                "Action": ["kms:Encrypt", "kms:PutKeyPolicy", "kms:DescribeKey"],
                "Resource": "*",
            },
            {
                "Effect": "Allow",
                "Principal": {"AWS": ENCLAVE_ARN},
                "Action": "kms:Decrypt",
                "Resource": "*",
                "Condition": {"StringEqualsIgnoreCase": PCR_CONDITIONS},
            },
        ],
    }
)


def rows() -> list[Row]:
    for name in [name for name in os.environ if name.startswith(("AWS_", "KMSTOOL_"))]:
        del os.environ[name]
    ready = sorted(ready_time() for _ in range(STARTS))
    with served() as environ:
        arn, blob = make_secret(environ)
        one_key = decrypts_a_second(environ, arn, blob, DECRYPTS)
        answers_max, limits.RECIPIENT_KEY_ANSWERS_MAX = limits.RECIPIENT_KEY_ANSWERS_MAX, 1
        new_keys = decrypts_a_second(environ, arn, blob, FRESH_KEYS)
        limits.RECIPIENT_KEY_ANSWERS_MAX = answers_max
    return [
        at_most("ready: start to first TLS answer, median", statistics.median(ready), "s", 0.5),
        figure("ready: fastest", ready[0], "s"),
        figure("ready: slowest", ready[-1], "s"),
        at_least("attested Decrypts, one connection, one key", one_key, "/s", 300),
        figure("attested Decrypts, one connection, new key each", new_keys, "/s"),
        *where_the_time_goes(),
    ]


def ready_time() -> float:
    """From fork to the answer to a request over TLS, of `kmstool emulator serve`."""
    started = time.perf_counter()
    with served() as environ:
        context = ssl.create_default_context(cafile=environ["AWS_CA_BUNDLE"])
        port = int(environ["AWS_ENDPOINT_URL_KMS"].rpartition(":")[2])
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            tls.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
            assert tls.recv(4096).startswith(b"HTTP/1.1 400 ")
            return time.perf_counter() - started


@contextlib.contextmanager
def served() -> Iterator[dict[str, str]]:
    """`kmstool emulator serve`, with its requests logged as it does by default."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [KMSTOOL, "emulator", "serve"], stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert process.stdout is not None
        try:
            environ: dict[str, str] = {}
            while "AWS_DEFAULT_REGION" not in environ:
                name, _, value = process.stdout.readline().removeprefix("export ").partition("=")
                environ[name] = value.strip()
            yield environ
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
            process.stdout.close()


def make_secret(environ: dict[str, str]) -> tuple[str, bytes]:
    client: Any = botocore.session.Session().create_client(
        "kms",
        region_name=environ["AWS_REGION"],
        endpoint_url=environ["AWS_ENDPOINT_URL_KMS"],
        verify=environ["AWS_CA_BUNDLE"],
        aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
    )
    arn = client.create_key(Policy=POLICY)["KeyMetadata"]["Arn"]
    answer = client.encrypt(KeyId=arn, Plaintext=SECRET, EncryptionContext=CONTEXT)
    client.close()
    return arn, answer["CiphertextBlob"]


def decrypts_a_second(environ: dict[str, str], arn: str, blob: bytes, count: int) -> float:
    key = parse_key_arn(arn)
    with open_direct(SessionOptions(), key=key, environ=environ) as client:

        def decrypt() -> None:
            answer = client.decrypt(blob, key=key, encryption_context=CONTEXT)
            assert isinstance(answer, Decrypted)
            assert answer.plaintext == SECRET

        for _ in range(5):
            decrypt()
        started = time.perf_counter()
        for _ in range(count):
            decrypt()
        return count / (time.perf_counter() - started)


def where_the_time_goes() -> list[Row]:
    """Each step of one attested Decrypt alone, in this process."""
    principal = default_principals().named(ENCLAVE_ARN)
    chain = SigningChain.generate()
    recipient = Recipient(Nsm(_OwnModule(chain)))
    attested_key = recipient.attested_key()
    key_id = "1234abcd-12ab-34cd-56ef-1234567890ab"
    key = Key(
        key_id=key_id,
        partition="aws",
        region="eu-west-1",
        account_id=principal.account_id,
        spec="SYMMETRIC_DEFAULT",
        usage="ENCRYPT_DECRYPT",
        description="",
        created=0.0,
        policy=POLICY,
        material=bytes(32),
        material_id=None,
    )
    blob = seal_blob(key.secret_key(), key_id, SECRET, CONTEXT)
    body = build_decrypt(
        ciphertext_blob=blob,
        key_id=key.arn,
        encryption_context=CONTEXT,
        encryption_algorithm=None,
        grant_tokens=(),
        dry_run=False,
        recipient=RecipientMember(attested_key.document),
    )
    credentials = Credentials(
        principal.access_key_id, principal.secret_access_key, principal.session_token, None
    )

    def signed() -> dict[str, str]:
        return sign(
            host="kms.eu-west-1.amazonaws.com",
            region="eu-west-1",
            target="TrentService.Decrypt",
            body=body,
            credentials=credentials,
            now=datetime.now(UTC),
        )

    headers = {name.lower(): value for name, value in signed().items()}
    request = HttpRequest("POST", "/", headers, body)
    principals = collect_principals([principal])
    model, chains = load_service_model(), ChainCache()
    parameters = model.parse_request("Decrypt", body)
    now = time.time()

    def verified() -> Any:
        return attest(
            parameters["Recipient"],
            root_der=chain.root_der,
            chains=chains,
            shapes=RANDOM_SHAPE,
            now=now,
        )

    attested = verified()
    cms = attested.seal(SECRET)

    def asked() -> None:
        authorise_key(
            principal,
            "kms:Decrypt",
            key,
            policy=POLICY,
            attested=attested,
            encryption_context=CONTEXT,
            extra={"kms:EncryptionAlgorithm": "SYMMETRIC_DEFAULT"},
            aliases=[],
            named=key.arn,
        )

    steps: list[tuple[str, Callable[[], object]]] = [
        ("client: sign", signed),
        ("KMS: signature, by botocore", lambda: authenticate(
            request, principals, region="eu-west-1", now=now
        )),
        ("KMS: request against the model", lambda: model.parse_request("Decrypt", body)),
        ("KMS: document, chain from the cache", verified),
        ("KMS: policy", asked),
        ("KMS: decrypt", lambda: open_blob(key.secret_key(), blob, CONTEXT)),
        ("KMS: CMS for the recipient", lambda: attested.seal(SECRET)),
        ("KMS: answer", lambda: write_answer({"KeyId": key.arn, "CiphertextForRecipient": cms})),
        ("client: unwrap the CMS", lambda: attested_key.unwrap(cms)),
    ]  # fmt: skip
    return [figure(f"step: {name}", median_time(step) * 1e6, "us") for name, step in steps]


class _OwnModule:
    """A security module in this process: only its signature is needed here."""

    def __init__(self, chain: SigningChain) -> None:
        self._module = SimulatedNsm(label_pcrs(), chain)

    def exchange(self, request: bytes) -> bytes:
        return self._module.handle(request)

    def close(self) -> None:
        pass


def median_time(step: Callable[[], object], times: int = 200) -> float:
    spent = []
    for _ in range(times):
        started = time.perf_counter()
        step()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


if __name__ == "__main__":
    sys.exit(main("the emulator", rows))

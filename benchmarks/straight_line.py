"""The yardstick of the cold start: `kmstool decrypt` as a straight line, one step after the other.

It does the same work with the same libraries (click, cryptography, cbor2, ssl) against the emulator
and prints the plaintext. It has what a careful person would write in an afternoon and none of what
kmstool adds: no checks of the answer, no strict readers, no retries, no caveats. It assumes the
emulator's `primitive` CMS shape.
"""

import base64
import hashlib
import hmac
import json
import os
import socket
import ssl
import struct
import sys
import time
from pathlib import Path
from typing import BinaryIO

import cbor2
import click
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


@click.command()
@click.option("--key-id", required=True)
@click.argument("ciphertext", type=click.File("rb"))
def main(key_id: str, ciphertext: BinaryIO) -> None:
    emulator = Path(os.environ["KMSTOOL_EMULATOR"])
    settings = json.loads((emulator / "emulator.json").read_text())
    credentials = json.loads((emulator / settings["credentials"]).read_text())
    region = key_id.split(":")[3]
    host = f"kms.{region}.amazonaws.com"

    # 1. The recipient key.
    key = rsa.generate_private_key(65537, 2048)
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    # 2. Its attestation document.
    nsm = socket.socket(socket.AF_UNIX)
    nsm.connect(str(emulator / settings["nsm"]))
    request = cbor2.dumps({"Attestation": {"public_key": spki, "nonce": None, "user_data": None}})
    nsm.sendall(struct.pack(">I", len(request)) + request)
    stream = nsm.makefile("rb")
    (length,) = struct.unpack(">I", stream.read(4))
    document = cbor2.loads(stream.read(length))["Attestation"]["document"]

    # 3. The connection.
    address, port = settings["kms"].removeprefix("tcp://").rsplit(":", 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=(emulator / settings["ca"]).read_text())
    tls = context.wrap_socket(socket.create_connection((address, int(port))), server_hostname=host)

    # 4. The request, signed.
    body = json.dumps(
        {
            "CiphertextBlob": base64.b64encode(base64.b64decode(ciphertext.read())).decode(),
            "KeyId": key_id,
            "Recipient": {
                "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
                "AttestationDocument": base64.b64encode(document).decode(),
            },
        }
    ).encode()
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "host": host,
        "x-amz-date": stamp,
        "x-amz-security-token": credentials.get("SessionToken"),
        "x-amz-target": "TrentService.Decrypt",
    }
    headers = {name: value for name, value in headers.items() if value}
    canonical = "".join(f"{name}:{value}\n" for name, value in headers.items())
    names = ";".join(headers)
    to_hash = f"POST\n/\n\n{canonical}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    scope = f"{stamp[:8]}/{region}/kms/aws4_request"
    digest = hashlib.sha256(to_hash.encode()).hexdigest()
    signature = ("AWS4" + credentials["SecretAccessKey"]).encode()
    for part in [*scope.split("/"), f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"]:
        signature = hmac.digest(signature, part.encode(), "sha256")
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials['AccessKeyId']}/{scope},"
        f" SignedHeaders={names}, Signature={signature.hex()}"
    )
    headers["content-length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    tls.sendall(f"POST / HTTP/1.1\r\n{lines}\r\n".encode() + body)

    # 5. The answer.
    received = b""
    while b"\r\n\r\n" not in received:
        received += tls.recv(16384)
    head, _, received = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        sys.exit(f"KMS refused: {head!r}")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    while len(received) < length:
        received += tls.recv(16384)
    cms = base64.b64decode(json.loads(received)["CiphertextForRecipient"])

    # 6. The unwrap; the offsets are those of KMS' own answers.
    content_key = key.decrypt(
        cms[131:387], padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    )
    decryptor = Cipher(algorithms.AES256(content_key), modes.CBC(cms[415:431])).decryptor()
    padded = decryptor.update(cms[433 : 433 + cms[432]]) + decryptor.finalize()
    sys.stdout.buffer.write(padded[: -padded[-1]])


if __name__ == "__main__":
    main()

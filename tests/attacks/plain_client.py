"""An enclave program that does the plain thing, as public examples do: it works, and trusts.

It takes what the parent gives it (credentials, ciphertexts, where KMS is), attests one RSA key for
its life, lets an ordinary AWS SDK or the parent call KMS, opens the CMS with asn1crypto, and falls
back to `Plaintext` so that it also runs on a laptop. `scripts/demo attacks` and tests use it.

    plain_client.py [--relay] CIPHERTEXT…   base64; prints a plaintext a line, in base64
    plain_client.py --relay --serve NAME    opens a message (nonce, AES-GCM) in the file NAME with
                                            the key in each ciphertext on stdin, and tells the
                                            parent how that went
"""

import base64
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.session
import cbor2
from asn1crypto import cms  # type: ignore[import-untyped]
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FOLDER = Path(os.environ.get("KMSTOOL_EMULATOR", ""))
Decrypt = Callable[..., dict[str, Any]]


def attest(public_key: bytes) -> bytes:
    """The security module's document, by the emulator's socket in place of /dev/nsm."""
    fields = {"public_key": public_key, "user_data": None, "nonce": None}
    request = cbor2.dumps({"Attestation": fields})
    with socket.socket(socket.AF_UNIX) as nsm, nsm.makefile("rb") as stream:
        nsm.connect(str(FOLDER / "nsm.sock"))
        nsm.sendall(len(request).to_bytes(4, "big") + request)
        answer = cbor2.loads(stream.read(int.from_bytes(stream.read(4), "big")))
    return bytes(answer["Attestation"]["document"])


def unwrap(data: bytes, key: rsa.RSAPrivateKey) -> bytes:
    """CiphertextForRecipient → plaintext."""
    content = cms.ContentInfo.load(data)["content"]
    recipient = content["recipient_infos"][0].chosen
    oaep = rsa_padding.OAEP(rsa_padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    content_key = key.decrypt(recipient["encrypted_key"].native, oaep)
    info = content["encrypted_content_info"]
    iv = info["content_encryption_algorithm"]["parameters"].native
    decryptor = Cipher(algorithms.AES(content_key), modes.CBC(iv)).decryptor()
    padded = decryptor.update(info["encrypted_content"].native) + decryptor.finalize()
    unpadder = padding.PKCS7(128).unpadder()
    return unpadder.update(padded) + unpadder.finalize()


def direct() -> Decrypt:
    """KMS' Decrypt of an AWS SDK, over TLS that ends here."""
    settings = json.loads((FOLDER / "emulator.json").read_text())
    credentials = json.loads((FOLDER / "enclave-credentials.json").read_text())
    kms: Any = botocore.session.get_session().create_client(
        "kms",
        region_name=os.environ["KMSTOOL_REGION"],
        endpoint_url=settings["kms"].replace("tcp://127.0.0.1", "https://localhost"),
        verify=str(FOLDER / settings["ca"]),
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials.get("SessionToken"),
    )
    decrypt: Decrypt = kms.decrypt
    return decrypt


def relayed(**parameters: Any) -> dict[str, Any]:
    """The same, asked of the parent."""
    text = json.dumps(parameters, default=lambda blob: base64.b64encode(blob).decode())
    head = {"Version": 1, "Request": "Kms", "Operation": "Decrypt"}
    message = {**head, "Region": os.environ["KMSTOOL_REGION"], "Parameters": json.loads(text)}
    data = json.dumps(message).encode()
    host, port = os.environ["KMSTOOL_RELAY"].removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port))) as parent, parent.makefile("rb") as stream:
        parent.sendall(len(data).to_bytes(4, "big") + data)
        answer: dict[str, Any] = json.loads(stream.read(int.from_bytes(stream.read(4), "big")))
    blobs = ("CiphertextForRecipient", "Plaintext")
    return {n: base64.b64decode(v) if n in blobs else v for n, v in answer["Answer"].items()}


def make_recipient(decrypt: Decrypt) -> Callable[[bytes], bytes]:
    """From a ciphertext to its plaintext, with one key for the life of the program."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    public_key = key.public_key().public_bytes(*form)

    def open_secret(ciphertext: bytes) -> bytes:
        answer = decrypt(
            KeyId="alias/app",
            CiphertextBlob=ciphertext,
            Recipient={
                "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
                "AttestationDocument": attest(public_key),
            },
        )
        wrapped: bytes | None = answer.get("CiphertextForRecipient")
        return unwrap(wrapped, key) if wrapped else bytes(answer["Plaintext"])

    return open_secret


def main(arguments: list[str]) -> None:
    open_secret = make_recipient(relayed if "--relay" in arguments else direct())
    names = [name for name in arguments if not name.startswith("--")]
    if "--serve" not in arguments:
        for ciphertext in names:
            plaintext = open_secret(base64.b64decode(ciphertext))
            print(base64.b64encode(plaintext).decode(), flush=True)
        return
    message = Path(names[0]).read_bytes()
    for line in sys.stdin:
        try:
            key = open_secret(base64.b64decode(line))
            AESGCM(key).decrypt(message[:12], message[12:], None)
            print("done", flush=True)
        except Exception as error:
            print(f"failed: {error!r}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

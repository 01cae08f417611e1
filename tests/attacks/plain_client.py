"""An enclave program that does the plain thing, as public examples do: it works, and trusts.

It takes what the parent gives it (credentials, ciphertexts, where KMS is), attests one RSA key for
its life, lets an ordinary AWS SDK call KMS, opens the CMS with asn1crypto, and falls back to
`Plaintext` so that it also runs on a laptop. Used by `scripts/demo attacks` and tests alone.

    plain_client.py CIPHERTEXT…        base64; prints a plaintext a line, in base64
"""

import base64
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import botocore.session
import cbor2
from asn1crypto import cms  # type: ignore[import-untyped]
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

KEY = "alias/app"


def attest(folder: Path, public_key: bytes) -> bytes:
    """The security module's document, by the emulator's socket in place of /dev/nsm."""
    request = cbor2.dumps(
        {"Attestation": dict.fromkeys(("user_data", "nonce")) | {"public_key": public_key}}
    )
    with socket.socket(socket.AF_UNIX) as nsm:
        nsm.connect(str(folder / "nsm.sock"))
        nsm.sendall(len(request).to_bytes(4, "big") + request)
        stream = nsm.makefile("rb")
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


def main(ciphertexts: list[str]) -> None:
    folder = Path(os.environ["KMSTOOL_EMULATOR"])
    settings = json.loads((folder / "emulator.json").read_text())
    credentials = json.loads((folder / "enclave-credentials.json").read_text())
    kms: Any = botocore.session.get_session().create_client(
        "kms",
        region_name=os.environ["KMSTOOL_REGION"],
        endpoint_url=settings["kms"].replace("tcp://127.0.0.1", "https://localhost"),
        verify=str(folder / settings["ca"]),
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials.get("SessionToken"),
    )
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for ciphertext in ciphertexts:
        answer: dict[str, Any] = kms.decrypt(
            KeyId=KEY,
            CiphertextBlob=base64.b64decode(ciphertext),
            Recipient={
                "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
                "AttestationDocument": attest(folder, spki),
            },
        )
        wrapped = answer.get("CiphertextForRecipient")
        plaintext = unwrap(wrapped, key) if wrapped else answer["Plaintext"]
        print(base64.b64encode(plaintext).decode(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

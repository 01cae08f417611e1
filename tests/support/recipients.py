"""A recipient of KMS' answers by other authors: cryptography's key, and openssl opens the CMS."""

import subprocess
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from support.emulator import RunningEmulator


class OpensslRecipient:
    """An RSA key whose `CiphertextForRecipient` the openssl command decrypts."""

    def __init__(self, folder: Path, *, bits: int = 2048) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        self.spki = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._file = folder / f"recipient-{bits}.pem"
        self._file.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    def parameter(self, emulator: RunningEmulator, **fields: Any) -> dict[str, Any]:
        """The `Recipient` of a request, its document signed now; fields as `attest` takes them."""
        fields.setdefault("public_key", self.spki)
        return {
            "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
            "AttestationDocument": emulator.attest(**fields),
        }

    def open(self, cms: bytes) -> bytes:
        """What the CMS holds, by `openssl cms -decrypt`."""
        command = ["openssl", "cms", "-decrypt", "-inform", "DER", "-inkey", str(self._file)]
        done = subprocess.run(command, input=cms, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

"""Envelope encryption in chunks, as public examples do it: a data key of KMS, AES-GCM, a file.

    python -m attacks.plain_files FILE    opens it; the content to stdout

The file: two bytes of length and the data key as KMS encrypted it, then chunks: nonce, AES-GCM.
"""

import os
import sys
from pathlib import Path

from attacks.plain_client import direct, make_recipient
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CHUNK = 4096
SEALED_CHUNK = 12 + CHUNK + 16


def seal(content: bytes, data_key: bytes, blob: bytes) -> bytes:
    """The sealed file."""
    sealed = len(blob).to_bytes(2, "big") + blob
    for at in range(0, len(content), CHUNK):
        nonce = os.urandom(12)
        sealed += nonce + AESGCM(data_key).encrypt(nonce, content[at : at + CHUNK], None)
    return sealed


def open_sealed(file: bytes) -> bytes:
    """The content, chunk by chunk."""
    head = 2 + int.from_bytes(file[:2], "big")
    cipher = AESGCM(make_recipient(direct())(file[2:head]))
    chunks = [file[at : at + SEALED_CHUNK] for at in range(head, len(file), SEALED_CHUNK)]
    return b"".join(cipher.decrypt(chunk[:12], chunk[12:], None) for chunk in chunks)


if __name__ == "__main__":
    sys.stdout.buffer.write(open_sealed(Path(sys.argv[1]).read_bytes()))

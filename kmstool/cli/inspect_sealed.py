"""What `kmstool inspect` shows of a sealed file: its header, of which nothing is authenticated."""

from io import BytesIO
from typing import Any

from kmstool.sealing.format import VERSION, BodyCipher
from kmstool.sealing.header import DataKeyEntry, Entry, HpkeEntry, read_head

_CIPHERS = {
    BodyCipher.AES_256_GCM: "AES-256-GCM",
    BodyCipher.CHACHA20_POLY1305: "ChaCha20-Poly1305",
}


def describe_sealed(data: bytes) -> dict[str, Any]:
    """The fields of the header that a file begins with.

    Raises:
        SealedFileError: it is malformed.
    """
    head = read_head(BytesIO(data).read)
    header = head.header
    return {
        "type": "sealed-file",
        "verified": False,
        "version": VERSION,
        "cipher": _CIPHERS[header.body],
        "label": header.label,
        "counter": header.counter,
        "signer": None if header.signer is None else header.signer.hex(),
        "salt": header.salt.hex(),
        "recipients": [_describe(entry) for entry in header.recipients],
        "header_bytes": len(head.covered),
        "header_mac": head.mac.hex(),
    }


def _describe(entry: Entry) -> dict[str, Any]:
    match entry:
        case HpkeEntry():
            return {
                "kind": "hpke",
                "key": str(entry.key),
                "kem": f"DHKEM({entry.kem.name[0]}-{entry.kem.name[1:]})",
                "public_key": entry.public_key.hex(),
                "enc": entry.enc.hex(),
            }
        case DataKeyEntry():
            return {
                "kind": "data-key",
                "key": str(entry.key),
                "ciphertext_blob_bytes": len(entry.ciphertext_blob),
                "encryption_context": dict(entry.encryption_context),
            }

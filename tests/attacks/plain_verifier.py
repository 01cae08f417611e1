"""A verifier of attestation documents with the shape of a public Python demo.

It checks the signature, the chain and PCR0, and takes every certificate that came with the document
into its trust store.
"""

from datetime import UTC, datetime

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature


def verify(data: bytes, *, root_der: bytes, pcr0: bytes) -> None:
    """Raises whatever goes wrong."""
    protected, _unprotected, payload, signature = cbor2.loads(data)
    fields = cbor2.loads(payload)
    store = [x509.load_der_x509_certificate(root_der)]
    store += [x509.load_der_x509_certificate(der) for der in fields["cabundle"]]
    leaf = x509.load_der_x509_certificate(fields["certificate"])
    issuer = next(one for one in store if one.subject == leaf.issuer)
    leaf.verify_directly_issued_by(issuer)
    assert leaf.not_valid_before_utc <= datetime.now(UTC) <= leaf.not_valid_after_utc
    public_key = leaf.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    r, s = (int.from_bytes(half, "big") for half in (signature[:48], signature[48:]))
    signed = cbor2.dumps(["Signature1", protected, b"", payload])
    public_key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA384()))
    assert fields["pcrs"][0] == pcr0, "PCR0 is another"

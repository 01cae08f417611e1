"""`kmstool inspect`: what a CMS, document, sealed file or image says, for the eye or as JSON.

It parses with the same strict readers that the rest of kmstool uses, and verifies nothing: no
signature, no chain, no time. It says so on stderr and in the JSON (`"verified": false`). An image
it measures; who made the image, and whether it is good, stays open all the same.
"""

import warnings
from typing import Any

import click
from cryptography import x509

from kmstool.attestation import eif
from kmstool.attestation.document import AttestationDocument, parse_document
from kmstool.attestation.verify import is_debug, own_time
from kmstool.cli import console
from kmstool.cli.common import Common, common_options
from kmstool.cli.image_file import read_image_or_bytes
from kmstool.cli.input import decode_input
from kmstool.cli.inspect_image import describe_image
from kmstool.cli.inspect_sealed import describe_sealed
from kmstool.cli.options import input_options
from kmstool.cli.output import Output, deliver, encode_json
from kmstool.cli.report import for_the_eye, in_hex
from kmstool.enclave.cms import EnvelopedData, parse_enveloped_data
from kmstool.errors import InputError
from kmstool.sealing.format import MAGIC

_WHAT = "the CMS or document"
_SEQUENCE = b"\x30"  # X.690, 8.9: where every CMS begins
_COSE_SIGN1 = (b"\x84", b"\x9f", b"\xd2")  # RFC 8949: array of four, of any length, tag 18


@click.command()
@input_options(_WHAT)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
@common_options
@click.pass_obj
def inspect(common: Common, *, source: str, encoding: str, as_json: bool) -> None:  # noqa: ARG001
    """Show what a CMS, attestation document, sealed file or enclave image says, unverified.

    Reads base64 from INPUT or stdin; a sealed file or an enclave image (EIF) as it is, of any
    length. Anyone can write such a file: nothing here checks a chain, a time or a MAC. Of an image
    it computes the PCRs, and says what they leave open.

    \b
    Examples:
      kmstool attest --format base64 | kmstool inspect
      kmstool inspect image.eif
    """
    data = read_image_or_bytes(source, what=_WHAT)
    if isinstance(data, eif.EifMeasurements):
        report = describe_image(data, _describe_certificate)
        console.note("these are the PCRs of this very file; who made it was not verified")
    else:
        report = _describe(data, encoding)
        console.note("nothing was verified: anyone can write such a file")
    text = encode_json(report) if as_json else for_the_eye(report)
    deliver([Output(text, None)])


def _describe(data: bytes, encoding: str) -> dict[str, Any]:
    if not data.startswith(MAGIC):  # which no base64 begins with
        data = decode_input(data, encoding=encoding, what=_WHAT)
    if data.startswith(MAGIC):
        return describe_sealed(data)
    if data.startswith(_SEQUENCE):
        return _describe_cms(parse_enveloped_data(data))
    if data.startswith(_COSE_SIGN1):
        return _describe_document(parse_document(data))
    raise InputError(
        f"a file that begins with the byte {data[:1].hex()} is neither a CMS, an"
        " attestation document, a sealed file nor an enclave image",
        hint="a CMS begins with 30, an attestation document with 84 or d2, a sealed file with"
        f" {MAGIC.decode()}, an image with {eif.MAGIC.decode()}",
    )


def _describe_cms(envelope: EnvelopedData) -> dict[str, Any]:
    return {
        "type": "cms-enveloped-data",
        "verified": False,
        "recipient_key_identifier": envelope.recipient_key_identifier.hex(),
        "key_encryption_algorithm": "RSAES-OAEP with SHA-256 and MGF1-SHA-256",
        "encrypted_key_bytes": len(envelope.encrypted_key),
        "content_encryption_algorithm": "AES-256-CBC",
        "iv": envelope.iv.hex(),
        "ciphertext_bytes": len(envelope.ciphertext),
    }


def _describe_document(document: AttestationDocument) -> dict[str, Any]:
    pcrs = {str(index): value.hex() for index, value in sorted(document.pcrs.items())}
    return {
        "type": "attestation-document",
        "verified": False,
        "module_id": document.module_id,
        "digest": document.digest,
        "timestamp": document.timestamp,
        "time": own_time(document).isoformat(timespec="milliseconds"),
        "pcrs": pcrs,
        "debug": is_debug(document),
        "public_key": in_hex(document.public_key),
        "user_data": in_hex(document.user_data),
        "nonce": in_hex(document.nonce),
        "certificate": _describe_certificate(document.certificate),
        "cabundle": [_describe_certificate(der) for der in document.cabundle],
        "signature": document.signature.hex(),
    }


def _describe_certificate(der: bytes) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():  # on stderr they would look like ours
            warnings.simplefilter("ignore")
            certificate = x509.load_der_x509_certificate(der)
        return {
            "subject": certificate.subject.rfc4514_string(),
            "issuer": certificate.issuer.rfc4514_string(),
            "not_before": certificate.not_valid_before_utc.isoformat(),
            "not_after": certificate.not_valid_after_utc.isoformat(),
        }
    except Exception as error:  # noqa: BLE001 - unverified bytes: whatever fails, it is not readable
        return {"unreadable": type(error).__name__, "bytes": len(der)}

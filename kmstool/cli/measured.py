"""What an image measures to, from whatever `--pcr-from` names: JSON, a document, the image itself.

The JSON is that of nitro-cli; an image (EIF) is measured, and may have any length. A document is
verified first, as of its own time; what it says of the running enclave is kept apart from what it
says of the image. Nothing here says which image is good.
"""

from collections.abc import Mapping
from typing import NamedTuple

from kmstool.caveats import Caveat
from kmstool.cli.input import check_size, parse_base64, read_bytes
from kmstool.errors import DocumentError, SettingError

_WHAT = "the file of measurements"
IMAGE_PCRS = (0, 1, 2)
_SIGNED_PCR = 8  # of an image whose build was signed: the signing certificate
_DOCUMENT = (b"\x84", b"\x9f", b"\xd2")  # RFC 8949: array of four, of any length, tag 18
_DOCUMENT_BASE64 = (b"h", b"n", b"0")  # what base64 makes of these first bytes


class Measured(NamedTuple):
    """Registers, index to 48 bytes.

    Attributes:
        image: PCR0, PCR1 and PCR2, and PCR8 where the image is signed.
        enclave: of a running one only: its other registers that are not zero, such as PCR3.
        caveats: of the verification of a document.
    """

    image: Mapping[int, bytes]
    enclave: Mapping[int, bytes]
    caveats: tuple[Caveat, ...] = ()


def read_measured(
    source: str, release_key: str | None = None, release_signature: str | None = None
) -> Measured:
    """Reads the file that `--pcr-from` names, under a release key where one is given.

    Raises:
        KmstoolError: it cannot be read, is nothing of the kind, not genuine, or not signed.
    """
    # Not at the top: they bring cryptography, and most calls need neither.
    from kmstool.attestation.eif import EifMeasurements  # noqa: PLC0415
    from kmstool.attestation.measurements import parse_measurements, verify_release  # noqa: PLC0415
    from kmstool.cli.image_file import read_image_or_bytes  # noqa: PLC0415

    data = read_image_or_bytes(source, what=_WHAT)
    if isinstance(data, EifMeasurements):
        if release_key is not None:
            raise SettingError(
                "a release key signs what nitro-cli printed of an image, not the image",
                hint="name that JSON with --pcr-from",
            )
        return Measured(data.pcrs, {})
    check_size(data, what=_WHAT)
    if release_key is not None and release_signature is not None:
        from kmstool.cli.public_key import read_public_key  # noqa: PLC0415

        signature = read_bytes(release_signature, what="the release's signature")
        return Measured(verify_release(data, signature, read_public_key(release_key)), {})
    if data.startswith(_DOCUMENT):
        return _of_document(data, source)
    if data.startswith(_DOCUMENT_BASE64):
        return _of_document(parse_base64(data, what=_WHAT, hint=None), source)
    return Measured(parse_measurements(data), {})


def _of_document(data: bytes, source: str) -> Measured:
    from kmstool.attestation.document import parse_document  # noqa: PLC0415
    from kmstool.attestation.verify import own_time, verify_document  # noqa: PLC0415
    from kmstool.session import attestation_root  # noqa: PLC0415

    root, caveats = attestation_root()
    try:
        # A stored document is as good as it was; how old it may be is not asked of measurements.
        at = own_time(parse_document(data))
        pcrs = verify_document(data, root_der=root, at=at).document.pcrs
    except DocumentError as error:  # of two documents, as in `verify`, the one that is meant
        message = f"{source}, taken for an image: {error}"
        raise DocumentError(message, step=error.step, hint=error.hint) from None
    image = {index: pcrs[index] for index in IMAGE_PCRS if index in pcrs}
    if any(pcrs.get(_SIGNED_PCR, b"")):
        image[_SIGNED_PCR] = pcrs[_SIGNED_PCR]
    enclave = {i: value for i, value in pcrs.items() if i not in image and any(value)}
    return Measured(image, enclave, caveats)

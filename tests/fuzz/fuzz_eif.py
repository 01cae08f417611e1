"""Fuzzes what is read of an enclave image; its checksum is mended, or nothing would get past it."""

import zlib
from io import BytesIO

from support.eif_images import Signing, arm64, bzimage, image, ramdisk, signed, with_pe

from kmstool import limits
from kmstool.attestation.eif import ambiguities, read_eif
from kmstool.cli.inspect_image import describe_image
from kmstool.cli.output import encode_json
from kmstool.cli.report import for_the_eye
from kmstool.errors import InputError


def target(data: bytes) -> None:
    mended = data[:544] + zlib.crc32(data[548:], zlib.crc32(data[:544])).to_bytes(4, "big")
    for content in (data, mended + data[548:]):
        try:
            found = read_eif(BytesIO(content))
        except InputError as error:
            check_refusal(error)
            continue
        assert found.size == len(content)
        assert set(found.pcrs) in ({0, 1, 2}, {0, 1, 2, 8})
        assert all(len(value) == limits.NSM_PCR_LENGTH for value in found.pcrs.values())
        assert found.command_line.isascii()
        assert found.command_line.isprintable()
        assert len(ambiguities(found)) == 3
        report = describe_image(found, lambda der: {"bytes": len(der)})
        assert encode_json(report)
        assert for_the_eye(report)


def check_refusal(error: InputError) -> None:
    assert str(error).isprintable()
    assert error.hint


_UNSIGNED = image(ramdisk("a", size=16), kernel=bzimage(4, sectors=1))
SEEDS: list[bytes] = [
    _UNSIGNED.file(),
    signed(_UNSIGNED, Signing().section(_UNSIGNED.pcr(0, 1, 3))).file(),
    image(kernel=arm64(128), flags=1).file(),
    image(kernel=with_pe(bzimage(4), [(512, 512)], b"signed")).file(),
]

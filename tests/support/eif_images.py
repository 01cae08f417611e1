"""Enclave images made by hand, small and with any defect that a test asks for.

Neither the writer in kmstool nor the reader has a part in it: a field is where AWS' crate
aws-nitro-enclaves-image-format puts it.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from kmstool.emulator.cbor_writer import encode

KERNEL, COMMAND_LINE, RAMDISK, SIGNATURE, METADATA = 1, 2, 3, 4, 5
HEADER_BYTES = 548
COMMAND = "reboot=k panic=30 console=ttyS0"
IDENTITY: dict[str, Any] = {
    "ImageName": "app",
    "ImageVersion": "1",
    "BuildMetadata": {
        "BuildTime": "2026-06-01T12:00:00Z",
        "BuildTool": "tests",
        "BuildToolVersion": "0",
        "OperatingSystem": "Linux",
        "KernelVersion": "6.1",
    },
    "DockerInfo": {},
    "CustomMetadata": {},
}


def bzimage(paragraphs: int = 64, *, sectors: int = 2, extra: bytes = b"") -> bytes:
    """A kernel as long as its header says: sectors (0 stands for 4), one more, paragraphs."""
    size = ((sectors or 4) + 1) * 512 + paragraphs * 16
    data = bytearray((b"bzImage " * (size // 8 + 1))[:size])
    data[0:2] = b"MZ"
    struct.pack_into("<I", data, 0x3C, 0)
    data[0x1F1] = sectors
    struct.pack_into("<I", data, 0x1F4, paragraphs)
    struct.pack_into("<H", data, 0x1FE, 0xAA55)
    data[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", data, 0x206, 0x020F)
    return bytes(data) + extra


def with_pe(kernel: bytes, sections: list[tuple[int, int]], certificates: bytes = b"") -> bytes:
    """The kernel with an EFI header of these sections (start, size), and signatures at its end."""
    data, pe = bytearray(kernel), 0x40
    struct.pack_into("<I", data, 0x3C, pe)
    data[pe : pe + 24 + 160 + 40 * len(sections)] = bytes(24 + 160 + 40 * len(sections))
    data[pe : pe + 4] = b"PE\0\0"
    struct.pack_into("<H", data, pe + 6, len(sections))
    struct.pack_into("<H", data, pe + 20, 160)
    struct.pack_into("<H", data, pe + 24, 0x20B)
    struct.pack_into("<I", data, pe + 24 + 108, 6)
    if certificates:
        struct.pack_into("<II", data, pe + 24 + 112 + 32, len(kernel), len(certificates))
    for index, (start, size) in enumerate(sections):
        struct.pack_into("<II", data, pe + 24 + 160 + 40 * index + 16, size, start)
    return bytes(data) + certificates


def arm64(size: int = 4096, *, in_memory: int = 8192) -> bytes:
    """An arm64 Image without an EFI header."""
    data = bytearray((b"Image " * (size // 6 + 1))[:size])
    struct.pack_into("<QQQ", data, 8, 0, in_memory, 10)
    data[56:60] = b"ARM\x64"
    struct.pack_into("<I", data, 60, 0)
    return bytes(data)


def ramdisk(name: str, magic: bytes = b"070701", size: int = 600) -> bytes:
    """Bytes that begin as a ramdisk."""
    return (magic + name.encode() * size)[:size]


@dataclass
class Section:
    """A section and its head; `None` is what is right."""

    kind: int
    data: bytes
    flags: int = 0
    length: int | None = None


@dataclass
class Image:
    """An image; what stands in `offsets` and `sizes` replaces that entry of the table."""

    sections: list[Section]
    flags: int = 0
    version: int = 4
    magic: bytes = b".eif"
    reserved: int = 0
    unused: int = 0
    count: int | None = None
    offsets: dict[int, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    checksum: int | None = None
    after: bytes = b""

    def file(self) -> bytes:
        """What stands in the file."""
        offsets, sizes, body = [0] * 32, [0] * 32, b""
        for index, section in enumerate(self.sections):
            if index < 32:
                offsets[index] = HEADER_BYTES + len(body)
                sizes[index] = len(section.data)
            length = len(section.data) if section.length is None else section.length
            body += struct.pack(">HHQ", section.kind, section.flags, length) + section.data
        for index, value in self.offsets.items():
            offsets[index] = value
        for index, value in self.sizes.items():
            sizes[index] = value
        count = len(self.sections) if self.count is None else self.count
        header = self.magic + struct.pack(
            ">HHQQHH", self.version, self.flags, 2**30, 2, self.reserved, count
        )
        header += struct.pack(">64QI", *offsets, *sizes, self.unused)
        checksum = zlib.crc32(header + body) if self.checksum is None else self.checksum
        return header + struct.pack(">I", checksum) + body + self.after

    def pcr(self, *indices: int) -> bytes:
        """A register of the sections with these indices."""
        digest = hashlib.sha384(b"".join(self.sections[i].data for i in indices)).digest()
        return hashlib.sha384(bytes(48) + digest).digest()


def image(*ramdisks: bytes, kernel: bytes = b"", command: str = COMMAND, **change: Any) -> Image:
    """In the crate's order: kernel, command line, metadata, ramdisks (two by default)."""
    return Image(
        [
            Section(KERNEL, kernel or bzimage()),
            Section(COMMAND_LINE, command.encode()),
            Section(METADATA, json.dumps(IDENTITY).encode()),
            *(
                Section(RAMDISK, data)
                for data in (ramdisks or (ramdisk("init"), ramdisk("app", b"\x1f\x8b\x08")))
            ),
        ],
        **change,
    )


def signing_certificate(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> x509.Certificate:
    """Self-signed, as AWS' instructions have it made."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "release")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=365))
    )
    return builder.sign(key, hashes.SHA384())


@dataclass
class Signing:
    """How PCR0 is signed; each field may be bent."""

    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP384R1())
    )
    index: object = 0
    algorithm: object = None
    unprotected: object = field(default_factory=dict)
    pem: Callable[[bytes], bytes] = bytes
    certificate: x509.Certificate | None = None
    bend: Callable[[bytes], bytes] = bytes

    def section(self, pcr0: bytes) -> bytes:
        """The content of a signature section."""
        number, digest, half = {
            "secp256r1": (-7, hashes.SHA256(), 32),
            "secp384r1": (-35, hashes.SHA384(), 48),
            "secp521r1": (-36, hashes.SHA512(), 66),
        }[self.key.curve.name]
        payload = encode({"register_index": self.index, "register_value": list(pcr0)})
        protected = encode({1: number if self.algorithm is None else self.algorithm})
        covered = encode(["Signature1", protected, b"", payload])
        r, s = decode_dss_signature(self.key.sign(covered, ec.ECDSA(digest)))
        signature = self.bend(r.to_bytes(half, "big") + s.to_bytes(half, "big"))
        sign1 = encode([protected, self.unprotected, payload, signature])
        certificate = self.certificate or signing_certificate(self.key)
        pem = self.pem(certificate.public_bytes(Encoding.PEM))
        return encode([{"signing_certificate": list(pem), "signature": list(sign1)}])


def signed(unsigned: Image, section: bytes) -> Image:
    """The image with a signature section at its end."""
    return replace(unsigned, sections=[*unsigned.sections, Section(SIGNATURE, section)])

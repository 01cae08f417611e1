"""The simulated Nitro hypervisor's keys: a certificate chain, and COSE signatures under its leaf.

What it does: makes a P-384 chain shaped as the real one (root, three intermediates with pathLen 2,
1 and 0, a leaf of three hours with critical basicConstraints, keyUsage and no key identifiers),
keeps it in a directory, and signs documents as COSE_Sign1 with ES384 (RFC 9052 section 4.4, RFC
9053 section 2.1).
What it never does: read a document, share code with `kmstool/attestation`, which does, or look like
AWS' chain to anyone who reads a name in it. The keys prove nothing of any hardware.

A directory made by `save` holds `ca0.der` (the root), `ca1.der` …, `leaf.der`, `leaf.key`, which a
QEMU that signs documents reads too, and `issuer.key`, with which an expired leaf is replaced.
"""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from kmstool.emulator.cbor_writer import encode, encode_indefinite_map
from kmstool.errors import InputError, LocalFileError

ES384_HEADER: Final = bytes.fromhex("a1013822")  # {1: -35}
LEAF_LIFE: Final = timedelta(hours=3)  # as real leaves
_RENEW_BEFORE: Final = timedelta(minutes=10)  # KMS takes documents of up to 5 minutes
_ROOT_LIFE: Final = timedelta(days=3650)
_CA_LIFE: Final = timedelta(days=365)  # real ones: 20 days to one; ours must outlive `serve`
_BACKDATED: Final = timedelta(days=1)  # so that a test may set its clock back


@dataclass(frozen=True, slots=True)
class Issuer:
    """A certificate with the private key to issue under it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class SigningChain:
    """Root, intermediates and a leaf that is made anew when a document would outlive it.

    Attributes:
        cabundle: DER of the root and the intermediates, in the order of a real document.
        leaf: the certificate that signs now, and its key.
    """

    def __init__(self, cabundle: tuple[bytes, ...], issuer: Issuer, leaf: Issuer) -> None:
        self.cabundle = cabundle
        self.leaf = leaf
        self._issuer = issuer
        self._lock = threading.Lock()

    @property
    def root_der(self) -> bytes:
        """The root's certificate: what a verifier of these documents has to trust."""
        return self.cabundle[0]

    @classmethod
    def generate(cls, *, now: datetime | None = None, intermediates: int = 3) -> Self:
        """Makes new keys and certificates, valid from a day before `now`."""
        now = (now or datetime.now(UTC)).replace(microsecond=0)
        start = now - _BACKDATED
        key = new_key()
        name = _name("kmstool-emulator.nitro-enclaves")
        root = make_certificate(
            name,
            key.public_key(),
            None,
            key,
            not_before=start,
            not_after=now + _ROOT_LIFE,
            ca=True,
            path_length=None,
        )
        issuer = Issuer(root, key)
        bundle = [root]
        for left in reversed(range(intermediates)):
            key = new_key()
            certificate = make_certificate(
                _name(f"ca{left}.kmstool-emulator.nitro-enclaves"),
                key.public_key(),
                issuer.certificate,
                issuer.key,
                not_before=start,
                not_after=now + _CA_LIFE,
                ca=True,
                path_length=left,
            )
            issuer = Issuer(certificate, key)
            bundle.append(certificate)
        return cls(tuple(map(der, bundle)), issuer, _new_leaf(issuer, now))

    def sign_document(
        self,
        *,
        module_id: str,
        timestamp: int,
        pcrs: Mapping[int, bytes],
        public_key: bytes | None = None,
        user_data: bytes | None = None,
        nonce: bytes | None = None,
        indefinite: bool = False,
    ) -> bytes:
        """Returns an attestation document with these fields, in a real document's order.

        Args:
            timestamp: milliseconds since 1970; the leaf is valid then.
            indefinite: write the payload as a map of indefinite length, as newer hosts do.
        """
        leaf = self._leaf_at(datetime.fromtimestamp(timestamp / 1000, UTC))
        payload: dict[object, object] = {
            "module_id": module_id,
            "digest": "SHA384",
            "timestamp": timestamp,
            "pcrs": dict(sorted(pcrs.items())),
            "certificate": der(leaf.certificate),
            "cabundle": list(self.cabundle),
            "public_key": public_key,
            "user_data": user_data,
            "nonce": nonce,
        }
        write = encode_indefinite_map if indefinite else encode
        return sign_cose(write(payload), leaf.key)

    def save(self, directory: str | Path) -> None:
        """Writes the chain into `directory` (made 0700), keys as files of mode 0600.

        Raises: LocalFileError.
        """
        folder = Path(directory)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for number, certificate in enumerate(self.cabundle):
                _write(folder / f"ca{number}.der", certificate)
            _write(folder / "leaf.der", der(self.leaf.certificate))
            _write(folder / "leaf.key", _pem(self.leaf.key))
            _write(folder / "issuer.key", _pem(self._issuer.key))
        except OSError as error:
            raise LocalFileError(f"cannot write {error.filename}: {error.strerror}") from None

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Reads what `save` wrote. Raises: LocalFileError, InputError."""
        folder = Path(directory)
        try:
            bundle: list[bytes] = []
            while (path := folder / f"ca{len(bundle)}.der").exists() or not bundle:
                bundle.append(path.read_bytes())
            issuer = Issuer(
                x509.load_der_x509_certificate(bundle[-1]), _load_key(folder / "issuer.key")
            )
            leaf = Issuer(
                x509.load_der_x509_certificate((folder / "leaf.der").read_bytes()),
                _load_key(folder / "leaf.key"),
            )
        except OSError as error:
            raise LocalFileError(
                f"cannot read {error.filename}: {error.strerror}",
                hint="the directory of a simulated signer is written by `kmstool emulator`",
            ) from None
        except (ValueError, TypeError):
            raise InputError(f"{folder} does not hold the keys of a simulated signer") from None
        return cls(tuple(bundle), issuer, leaf)

    def _leaf_at(self, moment: datetime) -> Issuer:
        with self._lock:
            certificate = self.leaf.certificate
            good_until = certificate.not_valid_after_utc - _RENEW_BEFORE
            if not certificate.not_valid_before_utc <= moment <= good_until:
                self.leaf = _new_leaf(self._issuer, moment)
            return self.leaf


def sign_cose(
    payload: bytes, key: ec.EllipticCurvePrivateKey, *, protected: bytes = ES384_HEADER
) -> bytes:
    """Returns the untagged COSE_Sign1 over `payload`, unprotected header empty."""
    return encode([protected, {}, payload, cose_signature(payload, key, protected=protected)])


def cose_signature(
    payload: bytes, key: ec.EllipticCurvePrivateKey, *, protected: bytes = ES384_HEADER
) -> bytes:
    """Returns r and s, each in the curve's length, over Sig_structure with SHA-384."""
    to_sign = encode(["Signature1", protected, b"", payload])
    r, s = decode_dss_signature(key.sign(to_sign, ec.ECDSA(hashes.SHA384())))
    length = (key.key_size + 7) // 8
    return r.to_bytes(length, "big") + s.to_bytes(length, "big")


def new_key() -> ec.EllipticCurvePrivateKey:
    """Returns a new private key on P-384."""
    return ec.generate_private_key(ec.SECP384R1())


def make_certificate(
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    not_before: datetime,
    not_after: datetime,
    ca: bool,
    path_length: int | None,
) -> x509.Certificate:
    """Returns a certificate with the two extensions of the real chain; `issuer` None: its own."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(_key_usage(ca=ca), critical=ca)  # real leaves: keyUsage is not critical
        .sign(issuer_key, hashes.SHA384())
    )


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _new_leaf(issuer: Issuer, moment: datetime) -> Issuer:
    key = new_key()
    start = moment.replace(microsecond=0) - timedelta(seconds=3)
    certificate = make_certificate(
        _name("enclave.kmstool-emulator.aws.invalid"),
        key.public_key(),
        issuer.certificate,
        issuer.key,
        not_before=start,
        not_after=start + LEAF_LIFE,
        ca=False,
        path_length=None,
    )
    return Issuer(certificate, key)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "kmstool emulator, not AWS"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not an elliptic curve key")
    return key


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)  # also where the file was there with another mode
        file.write(content)

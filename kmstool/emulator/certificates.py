"""The emulator's own certification authority, and TLS contexts for the names that KMS has.

The authority is made at every start and its key never leaves memory; its certificate is the
`ca.pem` that clients are told to trust. A certificate for a KMS host (FIPS and VPC endpoint names
included) is issued when a client first asks for that name with SNI, and for no other names: a
client that asks for a foreign host gets the certificate of localhost, and has to notice.

TLS 1.3 only, no ALPN (KMS speaks HTTP/1.1 here, and a client that offers h2 must not get it).
"""

import ipaddress
import re
import ssl
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kmstool.arn import PARTITIONS
from kmstool.limits import HOST_MAX

LIFETIME = timedelta(days=30)  # an emulator that serves a developer's machine may run for weeks
_CONTEXTS_MAX = 64  # names with a certificate at once; a fuzzing client must not fill the memory
_VPC_LABEL = re.compile(r"vpce-[0-9a-z-]{1,58}")


_CA_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kmstool emulator CA")])


class Authority:
    """A CA of one emulator, with a certificate of its own for each KMS name asked for."""

    def __init__(self, name: x509.Name = _CA_NAME) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = name
        self._certificate = self._make_root()
        self._server_key = ec.generate_private_key(ec.SECP256R1())
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = threading.Lock()

    @property
    def certificate_pem(self) -> str:
        """The root certificate, the content of `ca.pem`."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def server_context(self) -> ssl.SSLContext:
        """The context of the listening side: localhost, and any KMS name by SNI."""
        loopback = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
        context = make_context(
            self.issue(
                [x509.DNSName("localhost"), *(x509.IPAddress(address) for address in loopback)]
            )
        )

        def choose(
            connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _context: ssl.SSLContext
        ) -> None:
            if name and is_kms_host(name.lower()):
                connection.context = self._context_for(name.lower())

        context.sni_callback = choose
        return context

    def issue(self, names: list[x509.GeneralName], *, end: datetime | None = None) -> bytes:
        """A server certificate for these names and its private key, as PEM.

        Args:
            end: notAfter, for a certificate that has expired; default `LIFETIME` from now.
        """
        now = datetime.now(UTC)
        end = now + LIFETIME if end is None else end
        public_key = self._server_key.public_key()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(
                x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kmstool emulator KMS")])
            )
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, end) - timedelta(minutes=5))
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        key_pem = self._server_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return certificate.public_bytes(serialization.Encoding.PEM) + key_pem

    def _make_root(self) -> x509.Certificate:
        now = datetime.now(UTC)
        public_key = self._key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _context_for(self, name: str) -> ssl.SSLContext:
        with self._lock:
            context = self._contexts.get(name)
            if context is None:
                if len(self._contexts) >= _CONTEXTS_MAX:
                    self._contexts.clear()
                context = self._contexts[name] = make_context(self.issue([x509.DNSName(name)]))
            return context


def make_context(pem: bytes, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """A server's context that speaks one version of TLS.

    Args:
        pem: the certificate, whatever is sent along with it, and the private key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    # The standard library loads keys from files only.
    with tempfile.TemporaryDirectory(prefix="kmstool-") as folder:
        path = Path(folder, "server.pem")
        path.write_bytes(pem)
        context.load_cert_chain(path)
    return context


def is_kms_host(name: str) -> bool:
    """Whether a lower-case name is one of KMS: public, FIPS, or a VPC endpoint of its."""
    if len(name) > HOST_MAX:
        return False
    labels = name.split(".")
    if _VPC_LABEL.fullmatch(labels[0]):
        service, region, suffix = labels[1:2], ".".join(labels[2:3]), ".".join(labels[3:])
        suffixes = tuple(f"vpce.{partition.dns_suffix}" for partition in PARTITIONS)
    else:
        service, region, suffix = labels[:1], ".".join(labels[1:2]), ".".join(labels[2:])
        suffixes = tuple(partition.dns_suffix for partition in PARTITIONS)
    if service not in (["kms"], ["kms-fips"]) or suffix not in suffixes:
        return False
    return any(
        suffix.endswith(partition.dns_suffix) and re.fullmatch(partition.region_regex, region)
        for partition in PARTITIONS
    )


def _key_usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )

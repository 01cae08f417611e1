"""The emulator's CA: names that KMS has get a certificate of their own, and no others do."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from kmstool.arn import PARTITIONS, kms_host
from kmstool.emulator.authentication import HttpRequest
from kmstool.emulator.certificates import Authority, is_kms_host
from kmstool.emulator.server import HttpAnswer, Server

EVERY_HOST = [
    kms_host(region, fips=fips)
    for partition in PARTITIONS
    for region in partition.regions
    for fips in (False, True)
]


def nothing(_request: HttpRequest) -> HttpAnswer:
    return HttpAnswer(200, [], b"")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, ssl.SSLContext]]:
    authority = Authority()
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    path.write_text(authority.certificate_pem)
    context = ssl.create_default_context(cafile=str(path))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    server = Server(nothing, authority.server_context())
    yield server.address.port, context
    server.close()


@contextlib.contextmanager
def connection(site: tuple[int, ssl.SSLContext], name: str | None) -> Iterator[ssl.SSLSocket]:
    port, context = site
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        yield tls


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "127.0.0.1",
        "::1",
        "kms.eu-west-1.amazonaws.com",
        "KMS.EU-WEST-1.AMAZONAWS.COM",
        "kms-fips.us-gov-west-1.amazonaws.com",
        "kms.cn-north-1.amazonaws.com.cn",
        "vpce-0123456789abcdef0-abcdefgh.kms.us-east-1.vpce.amazonaws.com",
        "vpce-0123456789abcdef0-abcdefgh-us-east-1a.kms.us-east-1.vpce.amazonaws.com",
        "vpce-0123456789abcdef0-abcdefgh.kms-fips.us-east-1.vpce.amazonaws.com",
    ],
)
def test_names_that_are_served(site: tuple[int, ssl.SSLContext], name: str) -> None:
    with connection(site, name) as tls:
        assert tls.version() == "TLSv1.3"


@pytest.mark.parametrize("name", ["example.com", "sts.eu-west-1.amazonaws.com", "kms.localhost"])
def test_names_that_are_not(site: tuple[int, ssl.SSLContext], name: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError), connection(site, name):
        pass


def test_every_host_of_every_partition() -> None:
    assert len(EVERY_HOST) > 80
    assert all(is_kms_host(name) for name in EVERY_HOST)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "kms",
        "kms.amazonaws.com",
        "kms.nowhere-1.amazonaws.com",
        "kms.eu-west-1.amazonaws.com.cn",
        "kms.eu-west-1.amazonaws.com.example.com",
        "kms.eu-west-1.vpce.amazonaws.com",
        "x.kms.eu-west-1.amazonaws.com",
        "vpce-1.kms.eu-west-1.amazonaws.com",
        "vpce-1.s3.eu-west-1.vpce.amazonaws.com",
        "kms.eu-west-1\n.amazonaws.com",
        "kms." + "x" * 300,
    ],
)
def test_foreign_hosts(name: str) -> None:
    assert not is_kms_host(name)


def test_many_names_do_not_fill_the_memory(
    site: tuple[int, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kmstool.emulator.certificates._CONTEXTS_MAX", 2)
    for name in EVERY_HOST[:5]:
        with connection(site, name):
            pass


def test_the_root_is_a_ca_of_its_own(tmp_path: Path) -> None:
    one, other = Authority(), Authority()
    assert one.certificate_pem != other.certificate_pem
    certificate = x509.load_pem_x509_certificate(one.certificate_pem.encode())
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    issued = x509.load_pem_x509_certificates(one.issue([x509.DNSName("localhost")]))
    assert len(issued) == 1
    issued[0].verify_directly_issued_by(certificate)
    assert not list(tmp_path.iterdir())

"""The pinned certificates are the ones that the project's facts name, and no others."""

import hashlib
import ssl
from pathlib import Path
from typing import Any

from kmstool import roots

# SHA-256 of the DER, from AWS' pages and from certifi, not from kmstool/roots/__init__.py.
EXPECTED = {
    "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e": "Amazon Root CA 1",
    "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4": "Amazon Root CA 2",
    "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4": "Amazon Root CA 3",
    "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092": "Amazon Root CA 4",
    "568d6905a2c88708a4b3025190edcfedb1974a606a13c6e5290fcb2ae63edab5": (
        "Starfield Services Root Certificate Authority - G2"
    ),
}
NITRO = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
FOLDER = Path(roots.__file__).parent


def read_all(pem: str) -> dict[str, str]:
    """SHA-256 of the DER and common name of each, as OpenSSL reads them.

    Not by `cryptography`, which warns of Starfield's serial number: it is 0.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem)
    names = [common_name(certificate) for certificate in context.get_ca_certs()]
    prints = [hashlib.sha256(der).hexdigest() for der in context.get_ca_certs(binary_form=True)]
    return dict(zip(prints, names, strict=True))


def common_name(certificate: Any) -> str:
    return str(dict(pair for part in certificate["subject"] for pair in part)["commonName"])


def test_amazon_roots_are_the_five_and_nothing_else() -> None:
    pem = roots.amazon_roots_pem()
    assert read_all(pem) == EXPECTED
    assert pem.count("BEGIN") == 5


def test_each_file_is_the_one_that_the_module_names() -> None:
    for name, fingerprint in [
        *roots.AMAZON_ROOTS_PEM.items(),
        (roots.NITRO_ROOT_PEM, roots.NITRO_ROOT_SHA256),
    ]:
        assert list(read_all((FOLDER / name).read_text("ascii"))) == [fingerprint], name


def test_nitro_root() -> None:
    der = roots.nitro_root_der()
    assert hashlib.sha256(der).hexdigest() == NITRO == roots.NITRO_ROOT_SHA256
    assert read_all(ssl.DER_cert_to_PEM_cert(der)) == {NITRO: "aws.nitro-enclaves"}


def test_the_folder_holds_nothing_else() -> None:
    found = {path.name for path in FOLDER.iterdir() if path.name != "__pycache__"}
    assert found == {"__init__.py", *roots.AMAZON_ROOTS_PEM, roots.NITRO_ROOT_PEM}


def test_the_files_are_those_of_the_shared_material(shared: Path) -> None:
    for path in (shared / "roots").glob("*.pem"):
        assert (FOLDER / path.name).read_bytes() == path.read_bytes()

"""emulator/signer.py: the shape of its chain, its directory, its renewal."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from kmstool.attestation.document import parse_document
from kmstool.attestation.verify import Expectations, VerifiedDocument, own_time, verify_document
from kmstool.emulator.signer import SigningChain
from kmstool.errors import InputError, LocalFileError

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def chain() -> SigningChain:
    return SigningChain.generate(now=NOW)


def verify(document: bytes, chain: SigningChain, at: datetime) -> VerifiedDocument:
    allowed = Expectations(allow_debug=True)  # their PCRs are zero
    return verify_document(document, root_der=chain.root_der, at=at, expectations=allowed)


def sign(chain: SigningChain, moment: datetime) -> bytes:
    timestamp = int(moment.timestamp() * 1000)
    return chain.sign_document(module_id="i-0", timestamp=timestamp, pcrs={0: bytes(48)})


def extensions(certificate: x509.Certificate) -> list[tuple[str, bool]]:
    return [(each.oid.dotted_string, each.critical) for each in certificate.extensions]


def test_the_chain_has_the_shape_of_a_real_one(chain: SigningChain, shared: Path) -> None:
    """Compared with the document of 2022: lengths of path, keyUsage, algorithms, extensions."""
    real = parse_document((shared / "vectors" / "attestation-2022-10-13.cbor").read_bytes())
    ours = [chain.leaf.certificate, *map(x509.load_der_x509_certificate, chain.cabundle)]
    theirs = list(map(x509.load_der_x509_certificate, (real.certificate, *real.cabundle)))
    assert len(ours) == len(theirs)
    for mine, its in zip(ours, theirs, strict=True):
        for kind in (x509.BasicConstraints, x509.KeyUsage):
            a, b = (c.extensions.get_extension_for_class(kind) for c in (mine, its))
            assert a.critical == b.critical
        constraints = [
            c.extensions.get_extension_for_class(x509.BasicConstraints).value for c in (mine, its)
        ]
        assert constraints[0] == constraints[1]
        assert mine.signature_algorithm_oid == its.signature_algorithm_oid
        key = mine.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key.curve.name == "secp384r1"
    assert extensions(ours[0]) == extensions(theirs[0])
    life = [c.not_valid_after_utc - c.not_valid_before_utc for c in (ours[0], theirs[0])]
    assert abs(life[0] - life[1]) < timedelta(seconds=10)


def test_nobody_takes_it_for_aws(chain: SigningChain) -> None:
    for each in map(x509.load_der_x509_certificate, chain.cabundle):
        assert "not AWS" in each.subject.rfc4514_string()


def test_a_saved_chain_is_the_same_chain(chain: SigningChain, tmp_path: Path) -> None:
    directory = tmp_path / "new" / "nitro"
    chain.save(directory)
    loaded = SigningChain.load(str(directory))
    assert loaded.root_der == chain.root_der
    assert loaded.cabundle == chain.cabundle
    assert loaded.leaf.certificate == chain.leaf.certificate
    verify(sign(loaded, NOW), chain, NOW)
    later = NOW + timedelta(days=2)
    verify(sign(loaded, later), chain, later)


def test_keys_are_for_the_owner_alone(chain: SigningChain, tmp_path: Path) -> None:
    directory = tmp_path / "nitro"
    directory.mkdir()
    (directory / "leaf.key").write_text("old")
    (directory / "leaf.key").chmod(0o644)
    chain.save(directory)
    for name in ("leaf.key", "issuer.key"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
    names = sorted(path.name for path in directory.iterdir())
    assert names == sorted(
        ["ca0.der", "ca1.der", "ca2.der", "ca3.der", "issuer.key", "leaf.der", "leaf.key"]
    )
    key = load_pem_private_key((directory / "leaf.key").read_bytes(), None)
    assert key.public_key() == chain.leaf.certificate.public_key()


def test_the_repr_shows_no_key(chain: SigningChain) -> None:
    assert "PRIVATE" not in repr(chain) + repr(chain.leaf)


def test_the_leaf_is_renewed_before_its_documents_expire(chain: SigningChain) -> None:
    fresh = SigningChain.generate(now=NOW)
    first = fresh.leaf.certificate
    sign(fresh, NOW + timedelta(hours=2))
    assert fresh.leaf.certificate == first
    end = first.not_valid_after_utc
    near = end - timedelta(minutes=9)
    document = sign(fresh, near)
    assert fresh.leaf.certificate != first
    # Five minutes are what KMS allows: the leaf must hold as long.
    verify(document, fresh, near + timedelta(minutes=5))


def test_documents_before_the_leaf_get_a_leaf_of_their_time() -> None:
    chain = SigningChain.generate(now=NOW)
    before = NOW - timedelta(hours=5)
    document = sign(chain, before)
    verify(document, chain, own_time(parse_document(document)))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_any_number_of_intermediates(count: int) -> None:
    chain = SigningChain.generate(now=NOW, intermediates=count)
    verified = verify(sign(chain, NOW), chain, NOW)
    assert len(verified.chain.certificates) == count + 2


def test_a_directory_without_keys(tmp_path: Path) -> None:
    with pytest.raises(LocalFileError, match=r"ca0\.der: No such file") as caught:
        SigningChain.load(tmp_path)
    assert caught.value.hint


def test_a_directory_of_something_else(chain: SigningChain, tmp_path: Path) -> None:
    other = rsa.generate_private_key(65537, 2048)
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for name, content in (("issuer.key", b"x"), ("issuer.key", pem), ("ca3.der", b"x")):
        chain.save(tmp_path)
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="does not hold the keys"):
            SigningChain.load(tmp_path)


def test_a_directory_that_cannot_be_written(chain: SigningChain, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalFileError, match="cannot write"):
        chain.save(tmp_path / "file" / "nitro")

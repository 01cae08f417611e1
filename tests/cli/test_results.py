"""What the commands write: every format, to stdout and to files, with the caveats."""

import base64
import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from support.bent_kms import KEY_ARN
from support.ground import Ground
from support.processes import PLAINTEXT, InProcess

CAVEATS = ["simulated-nsm", "custom-roots"]


@pytest.fixture
def run(
    in_process: InProcess, ground: Ground, quick_key: None, monkeypatch: pytest.MonkeyPatch
) -> InProcess:
    for name, value in ground.env.items():
        monkeypatch.setenv(name, value)
    Path(ground.work, "in").write_text("Y2lwaGVydGV4dA==\n")
    return in_process


def codes(stderr: str) -> list[str]:
    """The codes of the warnings on stderr."""
    return [
        line.removeprefix("kmstool: warning[").partition("]")[0]
        for line in stderr.splitlines()
        if line.startswith("kmstool: warning[")
    ]


def test_decrypt_writes_the_plaintext_as_it_is(run: InProcess) -> None:
    done = run("decrypt", "in")
    assert (done.code, done.stdout) == (0, PLAINTEXT.encode()), done.stderr
    assert codes(done.stderr) == CAVEATS


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("raw", PLAINTEXT.encode()),
        ("base64", base64.b64encode(PLAINTEXT.encode()) + b"\n"),
        ("hex", PLAINTEXT.encode().hex().encode() + b"\n"),
    ],
)
def test_formats(run: InProcess, form: str, expected: bytes) -> None:
    assert run("decrypt", "in", "--format", form).stdout == expected


def test_json_has_kms_field_names_and_the_caveats(run: InProcess) -> None:
    answer = run("decrypt", "in", "--format", "json").json
    assert [caveat["code"] for caveat in answer.pop("caveats")] == CAVEATS
    assert answer == {
        "KeyId": KEY_ARN,
        "Plaintext": base64.b64encode(PLAINTEXT.encode()).decode(),
        "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
    }


def test_output_file_is_0600_and_stdout_empty(run: InProcess, ground: Ground) -> None:
    done = run("decrypt", "in", "-o", "out")
    out = Path(ground.work, "out")
    assert (done.code, done.stdout, out.read_bytes()) == (0, b"", PLAINTEXT.encode())
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_raw_input(run: InProcess, ground: Ground) -> None:
    Path(ground.work, "in").write_bytes(b"\x00\xff\x80")
    assert run("decrypt", "in", "--input", "raw").code == 0
    assert ground.kms.requests[0]["CiphertextBlob"] == base64.b64encode(b"\x00\xff\x80").decode()


def test_what_goes_into_the_request(run: InProcess, ground: Ground) -> None:
    done = run(
        *("decrypt", "in", "--encryption-context", "a=b=c", "--encryption-context", "d="),
        *("--grant-token", "one", "--grant-token", "two"),
    )
    request = ground.kms.requests[0]
    assert done.code == 0, done.stderr
    assert request["EncryptionContext"] == {"a": "b=c", "d": ""}
    assert request["GrantTokens"] == ["one", "two"]
    assert request["KeyId"] == KEY_ARN


def test_nonce_and_user_data_are_attested(run: InProcess, ground: Ground) -> None:
    nonce = "00112233445566778899aabbccddeeff"
    done = run("decrypt", "in", "--nonce", f"hex:{nonce}", "--user-data", "utf8:hello")
    assert done.code == 0, done.stderr
    document = base64.b64decode(ground.kms.requests[0]["Recipient"]["AttestationDocument"])
    assert bytes.fromhex(nonce) in document
    assert b"hello" in document


def test_any_key_is_a_caveat_and_wins_over_the_variable(run: InProcess, ground: Ground) -> None:
    done = run("decrypt", "in", "--any-key", "--region", "eu-west-1")
    assert done.code == 0, done.stderr
    assert "unpinned-key" in codes(done.stderr)
    assert "KeyId" not in ground.kms.requests[0]


def test_dry_run(run: InProcess, ground: Ground) -> None:
    ground.kms.script = [(400, {"__type": "DryRunOperationException"})] * 2
    done = run("decrypt", "in", "--dry-run")
    assert (done.code, done.stdout) == (0, b"")
    assert "kmstool: note: dry run: KMS would have carried out Decrypt" in done.stderr
    answer = run("decrypt", "in", "--dry-run", "--format", "json").json
    assert answer["DryRun"] == "Decrypt"


def test_generate_data_key_in_json(run: InProcess, ground: Ground) -> None:
    ground.kms.plaintext = bytes(32)
    answer = run("generate-data-key").json
    assert base64.b64decode(answer["Plaintext"]) == bytes(32)
    assert base64.b64decode(answer["CiphertextBlob"]) == b"blob"
    assert ground.kms.requests[0]["KeySpec"] == "AES_256"


def test_generate_data_key_to_two_files(run: InProcess, ground: Ground) -> None:
    ground.kms.plaintext = bytes(16)
    done = run(
        *("generate-data-key", "--number-of-bytes", "16"),
        *("-o", "key", "--ciphertext-out", "blob"),
    )
    assert (done.code, done.stdout) == (0, b""), done.stderr
    assert Path(ground.work, "key").read_bytes() == bytes(16)
    assert Path(ground.work, "blob").read_bytes() == b"blob"


def test_one_encoding_holds_for_all_files(run: InProcess, ground: Ground) -> None:
    ground.kms.plaintext = bytes(32)
    done = run("generate-data-key", "--format", "base64", "--ciphertext-out", "blob")
    assert done.stdout == base64.b64encode(bytes(32)) + b"\n"
    assert Path(ground.work, "blob").read_bytes() == base64.b64encode(b"blob") + b"\n"


def test_generate_data_key_pair(run: InProcess, ground: Ground) -> None:
    arguments = ("generate-data-key-pair", "--key-pair-spec", "ECC_NIST_P256")
    answer = run(*arguments).json
    assert sorted(answer) == [
        "KeyId",
        "KeyPairSpec",
        "PrivateKeyCiphertextBlob",
        "PrivateKeyPlaintext",
        "PublicKey",
        "caveats",
    ]
    done = run(*arguments, "-o", "k", "--ciphertext-out", "c", "--public-key-out", "p")
    assert done.code == 0, done.stderr
    read = [Path(ground.work, name).read_bytes() for name in ("k", "c", "p")]
    assert read == [PLAINTEXT.encode(), b"private blob", b"public"]


def test_a_value_with_its_own_file_is_not_in_the_json(run: InProcess, ground: Ground) -> None:
    answer = run(
        *("generate-data-key-pair", "--key-pair-spec", "SM2", "--public-key-out", "p"),
        *("--format", "json"),
    ).json
    assert "PublicKey" not in answer
    assert "PrivateKeyPlaintext" in answer
    assert Path(ground.work, "p").read_bytes() == b"public"


def test_generate_random(run: InProcess, ground: Ground) -> None:
    ground.kms.plaintext = b"0123456789abcdef"
    done = run("generate-random", "16", "--region", "eu-west-1")
    assert (done.code, done.stdout) == (0, b"0123456789abcdef"), done.stderr
    assert "kms-random" in codes(done.stderr)


@pytest.fixture
def peer(ground: Ground) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    encodings = {"peer.pem": serialization.Encoding.PEM, "peer.der": serialization.Encoding.DER}
    for name, encoding in encodings.items():
        Path(ground.work, name).write_bytes(
            key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    return key


@pytest.mark.parametrize("file", ["peer.pem", "peer.der"])
def test_derived_key_is_hkdf_of_the_secret(
    run: InProcess, ground: Ground, peer: ec.EllipticCurvePrivateKey, file: str
) -> None:
    ground.kms.plaintext = b"x" * 32
    done = run(
        *("derive-shared-secret", "--public-key", file, "--salt", "hex:0102"),
        *("--info", "utf8:purpose", "--length", "48", "--format", "json"),
    )
    expected = HKDF(hashes.SHA256(), 48, b"\x01\x02", b"purpose").derive(b"x" * 32)
    assert base64.b64decode(done.json["DerivedKey"]) == expected
    assert base64.b64decode(ground.kms.requests[0]["PublicKey"]) == (
        Path(ground.work, "peer.der").read_bytes()
    )


def test_raw_secret_has_its_caveat(
    run: InProcess, ground: Ground, peer: ec.EllipticCurvePrivateKey
) -> None:
    ground.kms.plaintext = b"x" * 32
    arguments = ("derive-shared-secret", "--public-key", "peer.pem", "--raw-secret")
    done = run(*arguments)
    assert (done.code, done.stdout) == (0, b"x" * 32)
    assert "raw-shared-secret" in codes(done.stderr)
    allowed = [option for code in CAVEATS for option in ("--allow-caveat", code)]
    refused = run("--strict", *arguments, *allowed)
    assert refused.code == 9
    assert ground.server.requests == 1


@pytest.mark.parametrize("before", [True, False])
def test_strict_refuses_before_the_request(run: InProcess, ground: Ground, before: bool) -> None:
    options = ("--strict", "--allow-caveat", "custom-roots")
    done = run(*options, "decrypt", "in") if before else run("decrypt", "in", *options)
    assert done.code == 9
    assert "[simulated-nsm]" in done.error
    assert "--allow-caveat simulated-nsm" in done.hint
    assert ground.server.connections == 0


def test_strict_merges_what_stands_before_and_after(run: InProcess) -> None:
    done = run(
        *("--strict", "--allow-caveat", "custom-roots"),
        *("decrypt", "in", "--allow-caveat", "simulated-nsm"),
    )
    assert (done.code, done.stdout) == (0, PLAINTEXT.encode()), done.stderr


def test_verbose_shows_the_steps(run: InProcess, ground: Ground) -> None:
    for arguments in (("--verbose", "decrypt", "in"), ("decrypt", "in", "--verbose")):
        done = run(*arguments)
        assert f"kmstool: trace: connecting to {ground.server.address}\n" in done.stderr
        assert "TLSv1.3" in done.stderr


def test_whole_processes_do_the_same(ground: Ground) -> None:
    done = ground.run("decrypt")
    assert (done.code, done.stdout) == (0, PLAINTEXT.encode()), done.stderr
    done = ground.run("decrypt", "-", "--format", "json")
    assert json.loads(done.stdout)["KeyId"] == KEY_ARN

"""A whole emulator in this process: what it leaves behind, who may use it, a second enclave."""

import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.emulator import RunningEmulator, running_emulator
from support.kms_calls import locked_policy, make_key

from kmstool.arn import parse_key_arn
from kmstool.emulator.pcrs import choose_pcrs, label_pcrs
from kmstool.emulator.principals import parse_principals
from kmstool.emulator.running import Emulator, EmulatorOptions, SecondEnclave
from kmstool.enclave.results import Decrypted
from kmstool.errors import KmsError, LocalFileError, SettingError
from kmstool.session import SessionOptions, open_direct

ADMIN_ALONE = """
[[principal]]
access_key_id = "AKIAEXAMPLE000000000"
secret_access_key = "s3cret"
arn = "arn:aws:iam::111122223333:role/admin"
iam_allows = ["kms:*"]
"""


@pytest.fixture
def emulator() -> Iterator[RunningEmulator]:
    with running_emulator() as running:
        yield running


def opened(environ: dict[str, str], arn: str, blob: bytes) -> bytes:
    key = parse_key_arn(arn)
    with open_direct(SessionOptions(), key=key, environ=environ) as client:
        answer = client.decrypt(blob, key=key)
    assert isinstance(answer, Decrypted)
    assert {caveat.code for caveat in answer.caveats} >= {"simulated-nsm", "custom-roots"}
    return answer.plaintext


def test_kmstool_opens_what_an_aws_client_encrypted(emulator: RunningEmulator) -> None:
    kms = emulator.admin_client()
    arn = make_key(kms, Policy=locked_policy(label_pcrs()))
    blob = kms.encrypt(KeyId=arn, Plaintext=b"secret")["CiphertextBlob"]
    assert opened(emulator.kmstool_environ(), arn, blob) == b"secret"


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    threads = threading.active_count()
    with Emulator(tmp_path):
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {"emulator.json", "nsm.sock", "ca.pem", "enclave-credentials.json", "nitro"}
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == threads


def test_nothing_is_left_behind_by_a_failed_start(tmp_path: Path) -> None:
    threads = threading.active_count()
    (tmp_path / "nsm.sock").touch()
    with pytest.raises(LocalFileError):
        Emulator(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["nsm.sock"]
    assert threading.active_count() == threads


def test_keys_survive_in_the_store(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    with running_emulator(store=store) as first:
        kms = first.admin_client()
        arn = make_key(kms)
        kms.create_alias(AliasName="alias/kept", TargetKeyId=arn)
        blob = kms.encrypt(KeyId=arn, Plaintext=b"kept")["CiphertextBlob"]
        kms.disable_key(KeyId=make_key(kms))
    with running_emulator(store=store) as second:
        kms = second.admin_client()
        assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == b"kept"
        assert kms.describe_key(KeyId="alias/kept")["KeyMetadata"]["Arn"] == arn
        states = {
            kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]["KeyState"]
            for key in kms.list_keys()["Keys"]
        }
        assert states == {"Enabled", "Disabled"}


def test_principals_without_an_enclave_role() -> None:
    with running_emulator(principals=parse_principals(ADMIN_ALONE)) as emulator:
        assert emulator.emulator.enclave is None
        assert emulator.admin_client().list_keys()["Keys"] == []


def test_principals_without_an_administrator(tmp_path: Path) -> None:
    principals = parse_principals(ADMIN_ALONE.replace("role/admin", "role/other"))
    with pytest.raises(SettingError, match="role/admin"):
        Emulator(tmp_path, EmulatorOptions(principals=principals))


def test_other_partitions() -> None:
    with running_emulator(region="cn-north-1") as emulator:
        arn = make_key(emulator.admin_client())
        assert arn.startswith("arn:aws-cn:kms:cn-north-1:111122223333:key/")
    with pytest.raises(SettingError, match="unknown region"), running_emulator(region="nowhere"):
        pass


@pytest.fixture
def second_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kmstool-") as name:
        yield Path(name)


def test_a_second_enclave(emulator: RunningEmulator, second_folder: Path) -> None:
    kms = emulator.admin_client()
    mine = choose_pcrs({0: b"\xcd" * 48})
    arn = make_key(kms, Policy=locked_policy(mine))
    blob = kms.encrypt(KeyId=arn, Plaintext=b"secret")["CiphertextBlob"]
    with pytest.raises(KmsError, match="AccessDeniedException"):
        opened(emulator.kmstool_environ(), arn, blob)
    with SecondEnclave(emulator.directory, second_folder, pcrs=mine, map_form="random"):
        environ = {"KMSTOOL_EMULATOR": str(second_folder)}
        assert opened(environ, arn, blob) == b"secret"
        assert opened(environ, arn, blob) == b"secret"
    assert list(second_folder.iterdir()) == []
    # The first one is as it was.
    with pytest.raises(KmsError, match="AccessDeniedException"):
        opened(emulator.kmstool_environ(), arn, blob)


def test_a_second_enclave_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(SettingError):
        SecondEnclave(tmp_path, tmp_path, pcrs={}, map_form="random")
    assert list(tmp_path.iterdir()) == []


def test_the_real_root_refuses_simulated_documents() -> None:
    with running_emulator(nitro_root="aws") as emulator:
        kms = emulator.admin_client()
        arn = make_key(kms, Policy=locked_policy(label_pcrs()))
        blob = kms.encrypt(KeyId=arn, Plaintext=b"x")["CiphertextBlob"]
        with pytest.raises(KmsError, match="another root"):
            opened(emulator.kmstool_environ(), arn, blob)


def test_a_document_that_grew_old() -> None:
    ahead = [0.0]
    with running_emulator(clock=lambda: time.time() + ahead[0]) as emulator:
        kms = emulator.admin_client()
        arn = make_key(kms, Policy=locked_policy(label_pcrs()))
        blob = kms.encrypt(KeyId=arn, Plaintext=b"x")["CiphertextBlob"]
        assert opened(emulator.kmstool_environ(), arn, blob) == b"x"
        ahead[0] = 400.0  # the signature's time is then refused before the document's age is seen
        with pytest.raises(KmsError, match="InvalidSignatureException"):
            opened(emulator.kmstool_environ(), arn, blob)

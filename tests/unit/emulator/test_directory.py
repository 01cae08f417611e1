"""The emulator's directory and environment, as the client's reader and AWS' formats know them."""

import json
import stat
from pathlib import Path

import pytest

from kmstool.emulator.directory import (
    credentials_json,
    environment_around,
    environment_of,
    write_directory,
    write_private,
)
from kmstool.emulator.nsm_transport import read_emulator_directory
from kmstool.emulator.principals import ADMIN_ARN, ENCLAVE_ARN, default_principals
from kmstool.enclave.credentials import parse_credentials
from kmstool.endpoint import TcpAddress
from kmstool.errors import LocalFileError

PRINCIPALS = default_principals()
ADMIN, ENCLAVE = PRINCIPALS.named(ADMIN_ARN), PRINCIPALS.named(ENCLAVE_ARN)
KMS = TcpAddress("127.0.0.1", 4433)


def test_the_client_reads_what_is_written(tmp_path: Path) -> None:
    write_directory(tmp_path, kms=KMS, ca_pem="pem", enclave=ENCLAVE)
    found = read_emulator_directory(str(tmp_path))
    assert found.kms_address == "tcp://127.0.0.1:4433"
    assert Path(found.ca_file).read_text() == "pem"
    assert found.nsm_socket == str(tmp_path / "nsm.sock")
    assert found.credentials_file is not None
    path = Path(found.credentials_file)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    credentials = parse_credentials(path.read_bytes())
    assert credentials.access_key_id == ENCLAVE.access_key_id
    assert credentials.secret_access_key == ENCLAVE.secret_access_key
    assert credentials.session_token == ENCLAVE.session_token
    assert not list(tmp_path.glob("*.new"))


def test_without_an_enclave_role(tmp_path: Path) -> None:
    write_directory(tmp_path, kms=KMS, ca_pem="pem", enclave=None)
    assert read_emulator_directory(str(tmp_path)).credentials_file is None


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(LocalFileError):
        write_directory(tmp_path / "none", kms=KMS, ca_pem="", enclave=None)


def test_credentials_without_a_token() -> None:
    assert set(json.loads(credentials_json(ADMIN))) == {"Version", "AccessKeyId", "SecretAccessKey"}


def test_private_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    (tmp_path / "file.new").symlink_to(tmp_path / "elsewhere")
    write_private(path, "one")
    path.chmod(0o644)
    write_private(path, "two")
    assert path.read_text() == "two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not (tmp_path / "elsewhere").exists()


def test_environment(tmp_path: Path) -> None:
    variables = environment_of(tmp_path, kms=KMS, region="eu-west-1", admin=ADMIN)
    assert variables == {
        "KMSTOOL_EMULATOR": str(tmp_path),
        "KMSTOOL_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL_KMS": "https://localhost:4433",
        "AWS_ENDPOINT_URL_STS": "https://localhost:4433",
        "AWS_CA_BUNDLE": str(tmp_path / "ca.pem"),
        "AWS_ACCESS_KEY_ID": ADMIN.access_key_id,
        "AWS_SECRET_ACCESS_KEY": ADMIN.secret_access_key,
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
    with_token = environment_of(tmp_path, kms=KMS, region="eu-west-1", admin=ENCLAVE)
    assert with_token["AWS_SESSION_TOKEN"] == ENCLAVE.session_token


@pytest.mark.parametrize(
    "name",
    [
        "AWS_PROFILE",
        "AWS_SESSION_TOKEN",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
        "AWS_USE_FIPS_ENDPOINT",
        "KMSTOOL_DIRECT",
        "KMSTOOL_RELAY",
        "KMSTOOL_CREDENTIALS",
    ],
)
def test_what_would_lead_a_client_elsewhere_is_unset(name: str) -> None:
    assert environment_around({name: "x", "PATH": "/bin"}, {"A": "b"}) == {"PATH": "/bin", "A": "b"}


def test_a_proxy_is_kept_away_from_loopback() -> None:
    around = environment_around({"HTTPS_PROXY": "http://p", "NO_PROXY": "x"}, {})
    assert around["NO_PROXY"] == "x,localhost,127.0.0.1"
    assert around["no_proxy"] == "localhost,127.0.0.1"
    assert "NO_PROXY" not in environment_around({}, {})

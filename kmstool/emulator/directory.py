"""The directory that `KMSTOOL_EMULATOR` names, and the environment that goes with it.

    emulator.json             {"version": 1, "nsm", "ca", "kms", "nitro_root", "credentials"}
    nsm.sock                  the simulated Nitro Security Module
    ca.pem                    the root of the simulated KMS' TLS certificate
    enclave-credentials.json  credentials-process JSON of the enclave's role, mode 0600
    nitro/                    the simulated hypervisor's chain and keys, mode 0700

It is written completely before anybody is told its name. The files with secrets are 0600 and the
directory is 0700; nothing in it is a secret of the real world.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kmstool.emulator.principals import Principal
from kmstool.endpoint import TcpAddress
from kmstool.errors import LocalFileError

NSM_SOCKET: Final = "nsm.sock"
CA_FILE: Final = "ca.pem"
CREDENTIALS_FILE: Final = "enclave-credentials.json"
NITRO_FOLDER: Final = "nitro"
NITRO_ROOT: Final = f"{NITRO_FOLDER}/ca0.der"
SETTINGS_FILE: Final = "emulator.json"

# What an AWS SDK or kmstool would otherwise take from around the emulator, to send it elsewhere.
_UNSET: Final = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "KMSTOOL_DIRECT",
    "KMSTOOL_RELAY",
    "KMSTOOL_CREDENTIALS",
    "KMSTOOL_RELAY",
)


def write_directory(
    folder: Path, *, kms: TcpAddress, ca_pem: str, enclave: Principal | None
) -> None:
    """Writes everything but the socket and `nitro/` into an existing directory.

    Raises:
        LocalFileError: a file cannot be written.
    """
    settings = {
        "version": 1,
        "nsm": NSM_SOCKET,
        "ca": CA_FILE,
        "kms": str(kms),
        "nitro_root": NITRO_ROOT,
    }
    try:
        write_private(folder / CA_FILE, ca_pem, mode=0o644)
        if enclave is not None:
            settings["credentials"] = CREDENTIALS_FILE
            write_private(folder / CREDENTIALS_FILE, credentials_json(enclave))
        write_private(folder / SETTINGS_FILE, json.dumps(settings, indent=1) + "\n", mode=0o644)
    except OSError as error:
        raise LocalFileError(f"cannot write {error.filename}: {error.strerror}") from None


def credentials_json(principal: Principal) -> str:
    """A principal as the JSON that AWS' credentials processes print (version 1)."""
    content = {
        "Version": 1,
        "AccessKeyId": principal.access_key_id,
        "SecretAccessKey": principal.secret_access_key,
    }
    if principal.session_token is not None:
        content["SessionToken"] = principal.session_token
    return json.dumps(content) + "\n"


def write_private(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Writes a file whole, under a temporary name first, with exactly this mode.

    Raises:
        OSError: as the system calls do.
    """
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(descriptor, mode)
        stream.write(text)
    temporary.replace(path)


def environment_of(
    folder: Path, *, kms: TcpAddress, region: str, admin: Principal
) -> dict[str, str]:
    """The variables for a command beside the emulator.

    kmstool reads `KMSTOOL_EMULATOR` and `KMSTOOL_REGION`; AWS SDKs and the AWS CLI read the others,
    and act as the administrator.
    """
    variables = {
        "KMSTOOL_EMULATOR": str(folder),
        "KMSTOOL_REGION": region,
        "AWS_ENDPOINT_URL_KMS": f"https://localhost:{kms.port}",
        "AWS_ENDPOINT_URL_STS": f"https://localhost:{kms.port}",
        "AWS_CA_BUNDLE": str(folder / CA_FILE),
        "AWS_ACCESS_KEY_ID": admin.access_key_id,
        "AWS_SECRET_ACCESS_KEY": admin.secret_access_key,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
    }
    if admin.session_token is not None:
        variables["AWS_SESSION_TOKEN"] = admin.session_token
    return variables


def environment_around(environ: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """A command's whole environment: what surrounds us, less what would lead it elsewhere."""
    result = {name: value for name, value in environ.items() if name not in _UNSET}
    for name in ("NO_PROXY", "no_proxy"):  # a proxy cannot reach our loopback
        if any(result.get(proxy) for proxy in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")):
            result[name] = ",".join(filter(None, (result.get(name), "localhost", "127.0.0.1")))
    return result | dict(variables)

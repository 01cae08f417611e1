"""The client's way to the simulated security module, and the directory that says where it is.

What it does: one request and answer over the emulator's Unix socket, and reading `emulator.json`.
What it never does: import another file of the emulator. It is the only one that may stand beside
the rooms of an enclave image (for tests of that image), so it needs the standard library and the
pure modules alone. session.py adds the caveats `simulated-nsm` and `custom-roots` where it is used.

A frame is a 4-byte big-endian length and that many bytes of CBOR, bounded as the ABI bounds them.
"""

import os.path
import socket
from dataclasses import dataclass

from kmstool import limits
from kmstool.errors import NsmError, SettingError
from kmstool.strict_json import read_object

_TIMEOUT = 10.0  # seconds for one exchange; the simulated module answers in a millisecond
_HINT_RUN = "start the command with `kmstool emulator run -- COMMAND`"


@dataclass(frozen=True, slots=True)
class EmulatorDirectory:
    """Where the parts of a running emulator are.

    Attributes:
        nsm_socket: path of the simulated module's Unix socket.
        ca_file: path of the PEM file with the root of the simulated KMS' TLS certificate.
        kms_address: `tcp://HOST:PORT` of the simulated KMS.
        credentials_file: path of credentials-process JSON of the enclave's role, or None.
        nitro_root_file: path of the DER that the simulated documents lead to, or None.
    """

    nsm_socket: str
    ca_file: str
    kms_address: str
    credentials_file: str | None
    nitro_root_file: str | None = None


def read_emulator_directory(path: str) -> EmulatorDirectory:
    """Reads `emulator.json` in the directory that KMSTOOL_EMULATOR names.

    Raises: SettingError.
    """
    file = os.path.join(path, "emulator.json")  # noqa: PTH118 - pathlib costs 3 ms of cold start
    try:
        with open(file, "rb") as stream:  # noqa: PTH123 - as above
            content = stream.read(limits.EMULATOR_FILE_MAX + 1)
    except OSError as error:
        raise SettingError(
            f"KMSTOOL_EMULATOR={path}: cannot read emulator.json: {error.strerror}",
            hint=f"{_HINT_RUN}, or unset the variable",
        ) from None
    settings = _parse_settings(content, path)
    credentials, root = settings.get("credentials"), settings.get("nitro_root")
    return EmulatorDirectory(
        nsm_socket=_inside(path, settings.get("nsm"), "nsm"),
        ca_file=_inside(path, settings.get("ca"), "ca"),
        kms_address=_address(path, settings.get("kms")),
        credentials_file=(
            None if credentials is None else _inside(path, credentials, "credentials")
        ),
        nitro_root_file=None if root is None else _inside(path, root, "nitro_root"),
    )


class SimulatedNsmTransport:
    """`enclave.nsm.Transport` over the Unix socket at `path`, a connection for each exchange."""

    def __init__(self, path: str) -> None:
        self._path = path

    def exchange(self, request: bytes) -> bytes:
        """Returns the answer's bytes. Raises: NsmError."""
        if not 1 <= len(request) <= limits.NSM_REQUEST_MAX:
            raise NsmError(
                f"a request of {len(request)} bytes cannot be sent to the NSM",
                hint=f"requests have 1..{limits.NSM_REQUEST_MAX} bytes",
            )
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(_TIMEOUT)
                connection.connect(self._path)
                connection.sendall(len(request).to_bytes(4, "big") + request)
                length = read_length(connection)
                if not 1 <= length <= limits.NSM_RESPONSE_MAX:
                    raise NsmError(f"the simulated NSM announced an answer of {length} bytes")
                return read_exactly(connection, length)
        except OSError as error:
            raise NsmError(
                f"the simulated NSM at {self._path} does not answer: {error.strerror or error}",
                hint=f"the emulator has ended, or KMSTOOL_EMULATOR is of another one; {_HINT_RUN}",
            ) from None

    def close(self) -> None:
        """Nothing is kept open between exchanges."""


def read_length(connection: socket.socket) -> int:
    """The length that begins a frame, unchecked. Raises: OSError."""
    return int.from_bytes(read_exactly(connection, 4), "big")


def read_exactly(connection: socket.socket, length: int) -> bytes:
    """`length` bytes. Raises: OSError, also where the connection ends before."""
    received = bytearray()
    while len(received) < length:
        piece = connection.recv(length - len(received))
        if not piece:
            raise ConnectionResetError("the connection ended within a frame")
        received += piece
    return bytes(received)


def _parse_settings(content: bytes, path: str) -> dict[str, object]:
    settings, _ = read_object(content, limits.EMULATOR_FILE_MAX)
    if settings is None or settings.get("version") != 1:
        raise SettingError(
            f"KMSTOOL_EMULATOR={path}: emulator.json is not of a version that this kmstool knows",
            hint="use the emulator and the client of one release",
        )
    return settings


def _inside(path: str, name: object, key: str) -> str:
    """Returns the path of a file in the directory; a name never leads out of it."""
    if type(name) is not str or not name or "\0" in name or name.startswith("/"):
        raise _bad(path, key)
    if ".." in name.split("/"):
        raise _bad(path, key)
    return os.path.join(path, name)  # noqa: PTH118 - as above


def _address(path: str, address: object) -> str:
    if type(address) is not str or not address.startswith("tcp://") or len(address) > 300:
        raise _bad(path, "kms")
    return address


def _bad(path: str, key: str) -> SettingError:
    return SettingError(
        f"KMSTOOL_EMULATOR={path}: emulator.json has no usable {key!r}",
        hint="the file is written by `kmstool emulator run` and `kmstool emulator serve`",
    )

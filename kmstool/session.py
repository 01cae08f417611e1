"""Builds a client from options and environment, for the CLI and for library users.

The one place that reads kmstool's own environment variables: `KMSTOOL_DIRECT`, `KMSTOOL_RELAY`,
`KMSTOOL_REGION`, `KMSTOOL_CREDENTIALS` (addresses, region, source of credentials) and
`KMSTOOL_EMULATOR`. None of them relaxes a check or makes an answer a relayed one; AWS_CA_BUNDLE,
SSL_CERT_FILE, AWS_ENDPOINT_URL and proxies are not read.
"""

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from kmstool import limits
from kmstool.arn import AnyKey, KeyArn, kms_host, parse_host
from kmstool.caveats import CUSTOM_NITRO_ROOT, CUSTOM_ROOTS, SIMULATED_NSM, Caveat, Tolerance
from kmstool.enclave.nsm import DevNsm, Nsm, Transport
from kmstool.errors import SettingError

if TYPE_CHECKING:
    import socket

    from kmstool.enclave.admin import KmsAdmin
    from kmstool.enclave.credentials import Credentials
    from kmstool.enclave.direct import DirectKms, UnpinnedKeyId
    from kmstool.enclave.exchange import Exchange
    from kmstool.enclave.http import HttpConnection
    from kmstool.enclave.relayed import RelayedKms
    from kmstool.endpoint import Deadline

DEFAULT_DIRECT = "vsock://3:8000"
DEFAULT_RELAY = "vsock://3:8001"
DEV_NSM = "/dev/nsm"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """What a caller may choose. Everything unset comes from the environment or a default.

    Attributes:
        via: `direct` or `direct=ADDRESS`, tried in order; or all of them `relay[=ADDRESS]`.
        credentials: `env`, `file:PATH`, `fd:N` or an address.
        region: of KMS; from the key's ARN unless given.
        host: the name that KMS' certificate must carry, for a VPC endpoint or a FIPS one.
        fips: take the region's FIPS endpoint.
        roots_file: PEM file of the roots to trust in place of Amazon's; brings `custom-roots`.
        timeout: seconds for one whole operation.
        nonce: in the attestation document, 16 to 512 bytes.
        user_data: in the attestation document, up to 512 bytes.
        tolerance: which caveats stop the work.
        trace: called with one line for each step.
    """

    via: tuple[str, ...] = ()
    credentials: str | None = None
    region: str | None = None
    host: str | None = None
    fips: bool = False
    roots_file: str | None = None
    timeout: float = limits.DEADLINE
    nonce: bytes | None = None
    user_data: bytes | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)
    trace: Callable[[str], None] = lambda _line: None


class _EmulatorDirectory(Protocol):
    """What session needs of `emulator.nsm_transport.EmulatorDirectory`."""

    @property
    def nsm_socket(self) -> str: ...
    @property
    def ca_file(self) -> str: ...
    @property
    def kms_address(self) -> str: ...
    @property
    def credentials_file(self) -> str | None: ...
    @property
    def nitro_root_file(self) -> str | None: ...


def open_nsm(environ: Mapping[str, str] = os.environ) -> tuple[Nsm, tuple[Caveat, ...]]:
    """The security module of this enclave, or the emulator's with its caveat.

    Raises:
        NsmError: there is none. SettingError: `KMSTOOL_EMULATOR` is set where it must not be.
    """
    if "KMSTOOL_EMULATOR" not in environ:
        return Nsm(DevNsm(DEV_NSM)), ()
    directory, transport = _emulator(environ)
    return Nsm(transport(directory.nsm_socket)), (SIMULATED_NSM,)


def open_direct(
    options: SessionOptions,
    *,
    key: "KeyArn | AnyKey | UnpinnedKeyId | None",
    environ: Mapping[str, str] = os.environ,
    explicit_credentials: "Credentials | None" = None,
) -> "DirectKms":
    """An attested client whose TLS ends here; nothing is sent before its first operation.

    Args:
        key: the key that will be used, whose ARN names the region; None for GenerateRandom.
        explicit_credentials: used in place of every other source (the drop-in's command line).

    Raises:
        SettingError, NsmError, CaveatRefused.
    """
    way = direct_way(options, key=key, environ=environ)
    nsm, caveats = open_nsm(environ)
    options.tolerance.check(caveats)
    from kmstool.enclave.recipient import Recipient  # noqa: PLC0415

    # The key generation starts here, so that it runs beside all that follows.
    recipient = Recipient(nsm, nonce=options.nonce, user_data=options.user_data)
    from kmstool.enclave.direct import DirectKms  # noqa: PLC0415

    exchange = _exchange(options, way, environ, explicit_credentials)
    return DirectKms(
        exchange, recipient, caveats=caveats + way.caveats, tolerance=options.tolerance
    )


def open_admin(
    options: SessionOptions, *, environ: Mapping[str, str] = os.environ
) -> "tuple[Nsm, KmsAdmin, tuple[Caveat, ...]]":
    """The security module, a client that makes keys, and what is known against trusting them.

    Nothing is sent before its first operation. Nonce and user_data of the options play no part:
    what a birth certificate's document carries is not for the caller to say.

    Raises:
        SettingError, NsmError, CaveatRefused.
    """
    way = direct_way(options, key=None, environ=environ)
    nsm, caveats = open_nsm(environ)
    caveats += way.caveats
    options.tolerance.check(caveats)

    from kmstool.enclave.admin import KmsAdmin  # noqa: PLC0415

    return nsm, KmsAdmin(_exchange(options, way, environ)), caveats


def attestation_root(
    environ: Mapping[str, str] = os.environ, *, root_file: str | None = None
) -> tuple[bytes, tuple[Caveat, ...]]:
    """The root that attestation documents must lead to, DER: AWS', the emulator's or a given one.

    Args:
        root_file: in the place of AWS' root; brings `custom-nitro-root`. Never a variable.

    Raises:
        SettingError: `KMSTOOL_EMULATOR` is set where it must not be, or a root cannot be read.
    """
    if root_file is not None:
        from kmstool.attestation.root_file import read_root  # noqa: PLC0415

        return read_root(root_file), (CUSTOM_NITRO_ROOT,)
    if "KMSTOOL_EMULATOR" not in environ:
        from kmstool.roots import nitro_root_der  # noqa: PLC0415

        return nitro_root_der(), ()
    path = _emulator(environ)[0].nitro_root_file
    if path is None:
        raise SettingError("the emulator's directory names no root of attestation")
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs 10 ms of cold start
            return file.read(limits.DOCUMENT_CERTIFICATE_MAX), (SIMULATED_NSM,)
    except OSError as error:
        raise SettingError(
            f"the emulator's root of attestation could not be read: {error.strerror}",
            hint="the emulator has ended, or KMSTOOL_EMULATOR is of another one",
        ) from None


class DirectWay(NamedTuple):
    """How KMS is reached over TLS that ends here; `caveats` are of the roots."""

    region: str
    host: str
    addresses: tuple[str, ...]
    roots_pem: str
    credentials: str | None  # the source, as `load_credentials` takes it
    caveats: tuple[Caveat, ...]


def direct_way(
    options: SessionOptions,
    *,
    key: "KeyArn | AnyKey | UnpinnedKeyId | None",
    environ: Mapping[str, str] = os.environ,
) -> DirectWay:
    """What options and environment say of it; nothing is connected. Raises `SettingError`."""
    _refuse_a_relay(options)
    region = _region(options, key, environ)
    host = parse_host(options.host) if options.host else kms_host(region, fips=options.fips)
    directory = _emulator(environ)[0] if "KMSTOOL_EMULATOR" in environ else None
    roots_pem, caveats = _roots(options, directory)
    source = options.credentials
    if source is None and directory is not None and directory.credentials_file is not None:
        source = f"file:{directory.credentials_file}"
    default = directory.kms_address if directory else environ.get("KMSTOOL_DIRECT", DEFAULT_DIRECT)
    addresses = _addresses(options.via or ("direct",), way="direct", default=default)
    return DirectWay(region, host, tuple(addresses), roots_pem, source, caveats)


def _exchange(
    options: SessionOptions,
    way: DirectWay,
    environ: Mapping[str, str],
    explicit: "Credentials | None" = None,
) -> "Exchange":
    from kmstool.enclave.credentials import load_credentials  # noqa: PLC0415
    from kmstool.enclave.exchange import Exchange  # noqa: PLC0415

    def credentials(deadline: "Deadline") -> "Credentials":
        return explicit or load_credentials(way.credentials, environ, deadline)

    return Exchange(
        dial=_dialer(way, options.trace),
        host=way.host,
        region=way.region,
        load_credentials=credentials,
        timeout=options.timeout,
        trace=options.trace,
    )


def is_relayed(options: SessionOptions) -> bool:
    """True where the options lead over a relay, so that `open_relayed` is meant.

    Raises:
        SettingError: they mix both setups; what an answer is worth must not depend on who was up.
    """
    relayed = {via.partition("=")[0] == "relay" for via in options.via}
    if len(relayed) > 1:
        raise SettingError(
            "--via names a relay and another way to KMS",
            hint="choose one: over a relay nobody knows whether an answer is KMS'",
        )
    return relayed == {True}


def open_relayed(
    options: SessionOptions, *, key: KeyArn, environ: Mapping[str, str] = os.environ
) -> "RelayedKms":
    """A client whose answers come through the parent's relay; nothing is sent before it is used.

    Raises:
        SettingError, NsmError, CaveatRefused.
    """
    if not isinstance(key, KeyArn):
        raise SettingError(
            "over a relay the key has to be named", hint="give --key-id with its full ARN"
        )
    _region(options, key, environ)
    _refuse_what_only_tls_has(options)
    default = environ.get("KMSTOOL_RELAY", DEFAULT_RELAY)
    addresses = _addresses(options.via or ("relay",), way="relay", default=default)
    nsm, caveats = open_nsm(environ)

    from kmstool.enclave.recipient import Recipient  # noqa: PLC0415
    from kmstool.enclave.relayed import RELAY_HINT, RelayedKms  # noqa: PLC0415
    from kmstool.endpoint import connect_first, parse_address  # noqa: PLC0415

    parsed = [parse_address(address) for address in addresses]

    def dial(deadline: "Deadline") -> "socket.socket":
        return connect_first(parsed, deadline, trace=options.trace, hint=RELAY_HINT)

    return RelayedKms(
        dial,
        lambda: Recipient(nsm, nonce=options.nonce, user_data=options.user_data),
        caveats=caveats,
        tolerance=options.tolerance,
        timeout=options.timeout,
        trace=options.trace,
    )


def _refuse_a_relay(options: SessionOptions) -> None:
    if is_relayed(options):
        raise SettingError(
            "this operation does not exist over a relay: whoever carries the answer could put a key"
            " or a number of its own choosing in its place",
            hint="use --via direct, where TLS ends in the enclave; over a relay there are decrypt,"
            " derive-shared-secret and open",
        )


def _refuse_what_only_tls_has(options: SessionOptions) -> None:
    given = {
        "--credentials": options.credentials is not None,
        "--host": options.host is not None,
        "--fips": options.fips,
        "--roots": options.roots_file is not None,
    }
    for name in (name for name, is_given in given.items() if is_given):
        raise SettingError(
            f"{name} means nothing over a relay",
            hint="the relay on the parent chooses credentials and endpoint; see its own options",
        )


def _region(
    options: SessionOptions,
    key: "KeyArn | AnyKey | UnpinnedKeyId | None",
    environ: Mapping[str, str],
) -> str:
    if isinstance(key, KeyArn):
        if options.region not in (None, key.region):
            raise SettingError(
                f"the region {options.region!r} is not that of the key, {key.region!r}",
                hint="leave --region out: a key ARN names its own",
            )
        return key.region
    region = options.region or environ.get("KMSTOOL_REGION")
    if not region:
        raise SettingError(
            "the region is not known", hint="give --region, KMSTOOL_REGION, or a full key ARN"
        )
    return region


def _addresses(via: tuple[str, ...], *, way: str, default: str) -> list[str]:
    addresses = []
    for text in via:
        name, equals, address = text.partition("=")
        if name != way or (equals and not address):
            raise SettingError(
                f"there is no way to KMS named {text!r}",
                hint="say direct or relay, or with an address direct=ADDRESS or relay=ADDRESS:"
                " vsock://CID:PORT, tcp://HOST:PORT or unix:PATH",
            )
        addresses.append(address or default)
    return addresses


def _dialer(way: DirectWay, trace: Callable[[str], None]) -> "Callable[[Deadline], HttpConnection]":
    from kmstool.enclave.http import HttpConnection  # noqa: PLC0415
    from kmstool.enclave.tls import open_tls  # noqa: PLC0415
    from kmstool.endpoint import connect_first, forwarder_hint, parse_address  # noqa: PLC0415

    parsed = [parse_address(address) for address in way.addresses]
    hint = forwarder_hint(parsed[-1], way.host)  # what fails in the end is the last of them

    def dial(deadline: "Deadline") -> HttpConnection:
        sock = connect_first(parsed, deadline, trace=trace, hint=hint)
        tls = open_tls(sock, host=way.host, roots_pem=way.roots_pem, deadline=deadline)
        trace(f"{tls.version()} to {way.host}, {(tls.cipher() or ('unknown cipher',))[0]}")
        return HttpConnection(tls, way.host)

    return dial


def _roots(
    options: SessionOptions, directory: _EmulatorDirectory | None
) -> tuple[str, tuple[Caveat, ...]]:
    path = options.roots_file or (directory.ca_file if directory is not None else None)
    if path is None:
        from kmstool.roots import amazon_roots_pem  # noqa: PLC0415

        return amazon_roots_pem(), ()
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123 - pathlib costs 10 ms of cold start
            return file.read(), (CUSTOM_ROOTS,)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "this is not PEM"
        raise SettingError(
            f"the roots in {path!r} could not be read: {reason}", hint="give a PEM file"
        ) from None


def _emulator(
    environ: Mapping[str, str],
) -> "tuple[_EmulatorDirectory, Callable[[str], Transport]]":
    """The directory that `KMSTOOL_EMULATOR` names, and the transport to its simulated module."""
    if os.path.exists(DEV_NSM):  # noqa: PTH110 - as above
        raise SettingError(
            "KMSTOOL_EMULATOR is set, and this machine has a real /dev/nsm",
            hint="unset KMSTOOL_EMULATOR: an enclave must not take a simulated attestation",
        )
    try:
        module = importlib.import_module("kmstool.emulator.nsm_transport")
    except ModuleNotFoundError:
        raise SettingError(
            "KMSTOOL_EMULATOR is set, and this installation has no emulator",
            hint="unset it in an enclave; elsewhere install kmstool[emulator]",
        ) from None
    return module.read_emulator_directory(environ["KMSTOOL_EMULATOR"]), module.SimulatedNsmTransport

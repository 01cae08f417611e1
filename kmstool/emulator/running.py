"""A whole emulator in this process: KMS and STS on loopback, a security module on a Unix socket.

`Emulator` is what `kmstool emulator run|serve` and the tests use; `SecondEnclave` is another image
against the same KMS. Both write into an existing directory and take out again what they put in.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from kmstool.arn import partition_of_region
from kmstool.emulator import directory as layout
from kmstool.emulator.attested import RANDOM_SHAPE
from kmstool.emulator.authentication import HttpRequest
from kmstool.emulator.certificates import Authority
from kmstool.emulator.cms_writer import Shape
from kmstool.emulator.kms import Kms
from kmstool.emulator.nsm import MapForm, SimulatedNsm
from kmstool.emulator.nsm_server import NsmServer
from kmstool.emulator.nsm_transport import read_emulator_directory
from kmstool.emulator.pcrs import choose_pcrs
from kmstool.emulator.principals import (
    ADMIN_ARN,
    ENCLAVE_ARN,
    Principal,
    Principals,
    default_principals,
)
from kmstool.emulator.server import HttpAnswer, Server
from kmstool.emulator.signer import SigningChain
from kmstool.emulator.store import Store
from kmstool.emulator.sts import Sts, is_query
from kmstool.errors import LocalFileError, SettingError
from kmstool.roots import nitro_root_der

DEFAULT_REGION = "eu-west-1"
NitroRoot = Literal["simulated", "aws"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorOptions:
    """What may be chosen about an emulator.

    Attributes:
        principals: None makes an administrator and an enclave role with fresh secrets.
        pcrs: of the simulated security module; default PCR0 to PCR2 are `pcrs.label_pcrs()`.
        map_form: how documents are written.
        shapes: how CMS answers are written; one is chosen at random for each.
        nitro_root: which root KMS trusts: the simulated one, or AWS' own (for real documents).
        store: the SQLite file of the keys; None keeps them in memory.
        port: of KMS on 127.0.0.1; 0 takes a free one.
        report: gets a line for each request; never a secret.
        clock: KMS' and the security module's, seconds since 1970.
    """

    region: str = DEFAULT_REGION
    principals: Principals | None = None
    pcrs: Mapping[int, bytes] = field(default_factory=lambda: choose_pcrs({}))
    map_form: MapForm = "random"
    shapes: tuple[Shape, ...] = RANDOM_SHAPE
    nitro_root: NitroRoot = "simulated"
    store: Path | None = None
    port: int = 0
    report: Callable[[str], None] = lambda _line: None
    clock: Callable[[], float] = time.time


class Emulator:
    """KMS and one simulated enclave, running from the moment this is made until `close`.

    Attributes:
        directory: where the files are; it has to exist and is not removed.
        chain: the simulated hypervisor's keys.
        nsm, store: the security module and the keys, for tests that look inside.
        authority: the CA of KMS' certificate.
        admin: the principal that AWS SDKs act as.
        enclave: the principal that kmstool acts as, or None where the file names no such role.

    Raises:
        SettingError, LocalFileError, TransportError.
    """

    def __init__(self, directory: Path, options: EmulatorOptions | None = None) -> None:
        options = options or EmulatorOptions()
        self.directory = directory
        self.region = options.region
        partition = partition_of_region(options.region).name
        self.principals = options.principals or default_principals(partition)
        self.admin = self.principals.named(_in_partition(ADMIN_ARN, partition))
        self.enclave = _named_or_none(self.principals, _in_partition(ENCLAVE_ARN, partition))
        self.chain = SigningChain.generate()
        simulated = options.nitro_root == "simulated"
        self.authority = Authority()
        with contextlib.ExitStack() as stack:
            self.store = Store(options.store)
            stack.callback(self.store.close)
            self.kms = Kms(
                principals=self.principals,
                store=self.store,
                region=options.region,
                root_der=self.chain.root_der if simulated else nitro_root_der(),
                shapes=options.shapes,
                report=options.report,
                clock=options.clock,
            )
            self.sts = Sts(
                principals=self.principals,
                region=options.region,
                report=options.report,
                clock=options.clock,
            )
            server = Server(
                self._handle,
                self.authority.server_context(),
                port=options.port,
                report=options.report,
            )
            stack.callback(server.close)
            self.address = server.address
            stack.callback(clear_directory, directory)
            self.nsm = SimulatedNsm(options.pcrs, self.chain, options.map_form, clock=options.clock)
            stack.enter_context(NsmServer(self.nsm.handle, directory / layout.NSM_SOCKET))
            self.chain.save(directory / layout.NITRO_FOLDER)
            layout.write_directory(
                directory,
                kms=self.address,
                ca_pem=self.authority.certificate_pem,
                enclave=self.enclave,
            )
            self._stack = stack.pop_all()

    @property
    def kms_address(self) -> str:
        """`tcp://127.0.0.1:PORT`."""
        return str(self.address)

    @property
    def ca_file(self) -> Path:
        """The root of KMS' certificate, as PEM."""
        return self.directory / layout.CA_FILE

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead kmstool and AWS SDKs here."""
        return layout.environment_of(
            self.directory, kms=self.address, region=self.region, admin=self.admin
        )

    def _handle(self, request: HttpRequest) -> HttpAnswer:
        return (self.sts if is_query(request) else self.kms).handle(request)

    def close(self) -> None:
        """Ends every thread and removes the files; the store's file stays."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class SecondEnclave:
    """Another simulated image: its own security module, signed by the same hypervisor, same KMS.

    Args:
        outer: the directory of a running emulator (`KMSTOOL_EMULATOR`).
        directory: an existing, empty one for this enclave.

    Raises:
        SettingError: `outer` is not an emulator's. LocalFileError.
    """

    def __init__(
        self, outer: Path, directory: Path, *, pcrs: Mapping[int, bytes], map_form: MapForm
    ) -> None:
        self.directory = directory
        running = read_emulator_directory(str(outer))
        chain = SigningChain.load(outer / layout.NITRO_FOLDER)
        with contextlib.ExitStack() as stack:
            stack.callback(clear_directory, directory)
            nsm = SimulatedNsm(pcrs, chain, map_form)
            stack.enter_context(NsmServer(nsm.handle, directory / layout.NSM_SOCKET))
            try:
                shutil.copyfile(running.ca_file, directory / layout.CA_FILE)
                if running.credentials_file is not None:
                    text = Path(running.credentials_file).read_text("utf-8")
                    layout.write_private(directory / layout.CREDENTIALS_FILE, text)
                shutil.copyfile(
                    outer / layout.SETTINGS_FILE, directory / layout.SETTINGS_FILE
                )  # its names are those of this layout
                shutil.copytree(outer / layout.NITRO_FOLDER, directory / layout.NITRO_FOLDER)
            except OSError as error:
                raise LocalFileError(
                    f"cannot copy {error.filename} of the running emulator: {error.strerror}"
                ) from None
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Ends the security module and removes the files."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def clear_directory(directory: Path) -> None:
    """Removes what `write_directory` and `SigningChain.save` wrote."""
    for name in (layout.SETTINGS_FILE, layout.CREDENTIALS_FILE, layout.CA_FILE):
        (directory / name).unlink(missing_ok=True)
    shutil.rmtree(directory / layout.NITRO_FOLDER, ignore_errors=True)


def _in_partition(arn: str, partition: str) -> str:
    return arn.replace("arn:aws:", f"arn:{partition}:", 1)


def _named_or_none(principals: Principals, arn: str) -> Principal | None:
    try:
        return principals.named(arn)
    except SettingError:
        return None

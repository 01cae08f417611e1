"""Enclaves with one thing wrong, for `kmstool doctor`: an emulator's directory that a test bends.

with bent_directory(tmp_path, emulator, handle=...) as environ: examine(inside_checks(...))
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from support.emulator import RunningEmulator

from kmstool.arn import KeyArn
from kmstool.caveats import Tolerance
from kmstool.doctor.access import Wish
from kmstool.doctor.inside import inside_checks
from kmstool.doctor.machine import Machine
from kmstool.emulator.nsm_server import NsmServer
from kmstool.findings import Finding, Outcome, Verdict, examine
from kmstool.session import SessionOptions

RNG = "sys/class/misc/hw_random/rng_current"
CLOCK = "sys/devices/system/clocksource/clocksource0/current_clocksource"


def enclave_machine(
    root: Path, *, rng: str | None = "nsm-hwrng", clock: str = "kvm-clock", release: str = "6.1.0"
) -> Machine:
    """The files of a kernel as a real enclave has them, below `root`."""
    for name, value in ((RNG, rng), (CLOCK, clock)):
        if value is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(f"{value}\n")
    return Machine(root=str(root), release=release)


@contextlib.contextmanager
def bent_directory(
    folder: Path,
    emulator: RunningEmulator,
    *,
    handle: Callable[[bytes], bytes] | None = None,
    kms: str | None = None,
    ca: str | None = None,
    credentials: Mapping[str, object] | None = None,
) -> Iterator[dict[str, str]]:
    """An environment whose emulator differs from the running one in what is given.

    Args:
        handle: the security module's; None leaves the socket out.
        kms: the address of another KMS. ca: PEM of its root.
        credentials: the file's JSON.
    """
    (folder / "nitro").mkdir()
    for name in ("emulator.json", "ca.pem", "enclave-credentials.json", "nitro/ca0.der"):
        shutil.copy(emulator.directory / name, folder / name)
    settings = json.loads((folder / "emulator.json").read_text())
    if kms is not None:
        settings["kms"] = kms
    (folder / "emulator.json").write_text(json.dumps(settings))
    if ca is not None:
        (folder / "ca.pem").write_text(ca)
    if credentials is not None:
        (folder / "enclave-credentials.json").write_text(json.dumps(credentials))
    environ = {**emulator.kmstool_environ(), "KMSTOOL_EMULATOR": str(folder)}
    if handle is None:
        yield environ
        return
    with NsmServer(handle, folder / "nsm.sock"):
        yield environ


class Examined:
    """The findings of one run, by the check's name."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings
        for one in findings:
            if one.outcome.verdict is Verdict.WRONG:
                assert one.outcome.advice, f"{one.check}: {one.outcome.text}, and no mend"

    def __getitem__(self, name: str) -> Outcome:
        return next(one.outcome for one in self.findings if one.check == name)

    def with_verdict(self, *verdicts: Verdict) -> list[str]:
        """The names of the checks that came out so."""
        return [one.check for one in self.findings if one.outcome.verdict in verdicts]

    @property
    def wrong(self) -> list[str]:
        return self.with_verdict(Verdict.WRONG)

    @property
    def cautions(self) -> list[str]:
        return self.with_verdict(Verdict.CAUTION)

    @property
    def text(self) -> str:
        """All of it, to be searched for secrets."""
        return repr(self.findings)


def examined(
    environ: Mapping[str, str],
    machine: Machine,
    *,
    key: KeyArn | None = None,
    operation: str = "decrypt",
    encryption_context: Mapping[str, str] | None = None,
    tolerance: Tolerance | None = None,
    nitro_root: Path | None = None,
    **options: object,
) -> Examined:
    """Runs the checks of the inside; `options` are fields of `SessionOptions`."""
    tolerance = tolerance or Tolerance()
    session = SessionOptions(tolerance=tolerance, **{"timeout": 10.0, **options})  # type: ignore[arg-type]
    wish = Wish(key=key, operation=operation, encryption_context=encryption_context)
    root = None if nitro_root is None else str(nitro_root)
    checks = inside_checks(session, wish, environ=environ, machine=machine, nitro_root=root)
    return Examined(list(examine(checks, tolerance=tolerance)))

"""`kmstool parent forward`; `kmstool/parent/forward.py` does the work."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from kmstool import limits
from kmstool.cli.common import Seconds, common_options
from kmstool.cli.parent_serving import (
    allow_cid_option,
    log_format_option,
    metrics_option,
    reporter,
    serve_until_signal,
)
from kmstool.errors import SettingError

if TYPE_CHECKING:
    from kmstool.endpoint import Address
    from kmstool.parent.forward import Forwarder
    from kmstool.parent.metrics import Metrics
    from kmstool.parent.settings import Route

F = TypeVar("F", bound=Callable[..., Any])


def _limit_options(command: F) -> F:
    seconds = Seconds(min=0, max=limits.FORWARD_SECONDS_MAX, min_open=True)
    count = click.IntRange(1, limits.FORWARD_CONNECTIONS_MAX)
    for name, kind, default, explanation in reversed(
        (
            ("connections", count, limits.FORWARD_CONNECTIONS, "At once; more are refused."),
            (
                "connections-per-cid",
                count,
                None,
                (
                    f"At once from one enclave  [default: {limits.FORWARD_CONNECTIONS_PER_CID},"
                    " or --connections where that is less]"
                ),
            ),
            (
                "connect-seconds",
                seconds,
                limits.FORWARD_CONNECT_SECONDS,
                "For the target to be found and connected.",
            ),
            (
                "idle-seconds",
                seconds,
                limits.FORWARD_IDLE_SECONDS,
                "Without a byte until a connection is ended.",
            ),
            (
                "lifetime-seconds",
                seconds,
                limits.FORWARD_LIFETIME_SECONDS,
                "Until a connection is ended, however busy.",
            ),
            (
                "drain-seconds",
                Seconds(min=0, max=limits.FORWARD_SECONDS_MAX),
                limits.FORWARD_DRAIN_SECONDS,
                "For open connections to end after SIGTERM.",
            ),
        )
    ):
        command = click.option(
            f"--{name}",
            metavar="N" if kind is count else "SECONDS",
            type=kind,
            default=default,
            show_default=default is not None,
            help=explanation,
        )(command)
    return command


@click.command()
@click.option(
    "--listen",
    "listens",
    metavar="ADDRESS",
    multiple=True,
    required=True,
    help="vsock://:PORT for every enclave of this instance; vsock://CID:PORT, tcp://HOST:PORT or"
    " unix:PATH (repeatable, each with its --to).",
)
@click.option(
    "--to",
    "targets",
    metavar="HOST:PORT",
    multiple=True,
    required=True,
    help="Where the connections of the --listen in the same place go, such as"
    " kms.eu-west-1.amazonaws.com:443 (repeatable).",
)
@allow_cid_option
@click.option(
    "--allowlist",
    "allowlist_file",
    metavar="FILE",
    help="YAML of AWS' vsock-proxy: every --to must be in it.",
)
@_limit_options
@metrics_option
@log_format_option
@common_options
def forward(
    *,
    listens: tuple[str, ...],
    targets: tuple[str, ...],
    allowed_cids: tuple[int, ...],
    allowlist_file: str | None,
    metrics: str | None,
    log_format: str,
    connections_per_cid: int | None,
    **others: Any,
) -> NoReturn:
    """Carry an enclave's connections to KMS, bytes untouched.

    TLS ends in the enclave and at KMS; nothing here can read along, and nobody has to trust it.
    Writes a line for each connection to stderr. Ends on SIGTERM or Ctrl-C, when open connections
    have ended or --drain-seconds are over.

    \b
    Example:
      kmstool parent forward --listen vsock://:8000 --to kms.eu-west-1.amazonaws.com:443
    """
    from kmstool.parent import descriptors  # noqa: PLC0415 - not for --help
    from kmstool.parent.forward import Forwarder  # noqa: PLC0415
    from kmstool.parent.listening import check_cids  # noqa: PLC0415
    from kmstool.parent.metrics import Metrics  # noqa: PLC0415
    from kmstool.parent.settings import ForwardLimits  # noqa: PLC0415

    routes = _routes(listens, targets)
    for route in routes:
        check_cids(allowed_cids, route.listen)
    if allowlist_file is not None:
        _check_targets(routes, allowlist_file)
    bounds = ForwardLimits(**others)
    each = connections_per_cid or min(bounds.connections, limits.FORWARD_CONNECTIONS_PER_CID)
    bounds = dataclasses.replace(bounds, connections_per_cid=each)
    report = reporter(log_format)
    possible = descriptors.raise_limit(bounds.connections)
    if possible < bounds.connections:
        report(f"there are descriptors for {possible} connections only; see `ulimit -Hn`")
    counted = Metrics()
    forwarder = Forwarder(
        routes, limits=bounds, allowed_cids=allowed_cids, report=report, metrics=counted
    )
    metrics_address = _metrics_address(metrics)
    ready = [f"forwarding {route.listen} to {route.to}" for route in routes]
    if metrics_address is not None:
        ready.append(f"metrics at {metrics_address}")
    serve_until_signal(
        lambda: _running(forwarder, metrics_address, counted),
        ready=ready,
        report=report,
        alive=lambda one: one.alive,
    )


@contextlib.contextmanager
def _running(
    forwarder: "Forwarder", metrics_address: "Address | None", metrics: "Metrics"
) -> "Iterator[Forwarder]":
    from kmstool.parent.metrics_server import MetricsServer  # noqa: PLC0415

    with contextlib.ExitStack() as stack:
        if metrics_address is not None:
            stack.enter_context(MetricsServer(metrics_address, metrics))
        yield stack.enter_context(forwarder)


def _routes(listens: tuple[str, ...], targets: tuple[str, ...]) -> "list[Route]":
    from kmstool.endpoint import parse_address  # noqa: PLC0415
    from kmstool.parent.addresses import collide  # noqa: PLC0415
    from kmstool.parent.settings import Route, parse_target  # noqa: PLC0415

    if len(listens) != len(targets):
        raise SettingError(
            f"there are {len(listens)} --listen and {len(targets)} --to",
            hint="give each --listen its --to, in the same order",
        )
    if len(listens) > limits.FORWARD_ROUTES_MAX:
        raise SettingError(f"there are more than {limits.FORWARD_ROUTES_MAX} --listen")
    routes: list[Route] = []
    for listen, target in zip(listens, targets, strict=True):
        address = parse_address(listen, listening=True)
        for route in routes:
            if collide(route.listen, address):
                raise SettingError(
                    f"{route.listen} and {address} cannot both be listened on",
                    hint="give each an address of its own",
                )
        routes.append(Route(address, parse_target(target)))
    return routes


def _check_targets(routes: "list[Route]", allowlist_file: str) -> None:
    from kmstool.cli.input import read_bytes  # noqa: PLC0415
    from kmstool.parent.allowlist import parse_allowlist  # noqa: PLC0415

    permitted = parse_allowlist(read_bytes(allowlist_file, what="the allow list"))
    for route in routes:
        if route.to not in permitted:
            raise SettingError(
                f"{route.to} is not on the list {allowlist_file}",
                hint="add it there, with `address` and `port`, or leave --allowlist out",
            )


def _metrics_address(text: str | None) -> "Address | None":
    from kmstool.endpoint import parse_address  # noqa: PLC0415
    from kmstool.parent.addresses import check_metrics_address  # noqa: PLC0415

    return None if text is None else check_metrics_address(parse_address(text, listening=True))

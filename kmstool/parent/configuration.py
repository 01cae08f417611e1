"""`kmstool-parent.toml`: what `kmstool parent up` starts. Pure: bytes in, settings out.

The file is read as a whole, and every mistake in it is told with its place and what to write there.
An unknown key is one: a limit that is spelt wrong would be no limit. The values stand in
`settings.py`, and can be taken from here. What the file names (an allow list, a session policy) is
read through a function of the caller's. All its settings: docs/reference/parent-configuration.md.
"""

import difflib
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from kmstool import limits
from kmstool.arn import KeyArn, parse_key_arn
from kmstool.endpoint import Address, TcpAddress, VsockAddress, parse_address
from kmstool.errors import SettingError
from kmstool.parent.addresses import (
    check_credentials_address,
    check_metrics_address,
    check_relay_address,
    collide,
)
from kmstool.parent.allowlist import parse_allowlist
from kmstool.parent.mistakes import Mistake, Mistakes, MistakesError
from kmstool.parent.session_policy import (
    check_role_arn,
    check_role_session_name,
    check_session_policy,
    session_policy_for,
)
from kmstool.parent.settings import (
    Configuration,
    CredentialsSettings,
    ForwardLimits,
    RelaySettings,
    Route,
    Target,
    check_endpoint_url,
    make_target,
    parse_target,
)
from kmstool.parent.toml_table import (
    Table,
    as_integer,
    as_list,
    as_seconds,
    as_table,
    as_text,
)

__all__ = [
    "Configuration",
    "CredentialsSettings",
    "ForwardLimits",
    "Reading",
    "RelaySettings",
    "Route",
    "Target",
    "describe",
    "make_target",
    "parse_configuration",
    "parse_target",
    "read_configuration",
]

FILE_NAME: Final = "kmstool-parent.toml"
_TOP: Final = ("forward", "credentials", "relay", "limits", "allowed_cids", "allowlist", "metrics")
_LIMITS: Final = {
    "connections": as_integer(1, limits.FORWARD_CONNECTIONS_MAX),
    "connections_per_cid": as_integer(1, limits.FORWARD_CONNECTIONS_MAX),
    "connect_seconds": as_seconds(limits.FORWARD_SECONDS_MAX),
    "idle_seconds": as_seconds(limits.FORWARD_SECONDS_MAX),
    "lifetime_seconds": as_seconds(limits.FORWARD_SECONDS_MAX),
    "drain_seconds": as_seconds(limits.FORWARD_SECONDS_MAX, zero=True),
}
_CREDENTIALS: Final = (
    *("listen", "assume_role", "session_policy", "only_kms"),
    *("role_session_name", "duration_seconds"),
)
_OF_A_ROLE: Final = ("session_policy", "only_kms", "role_session_name", "duration_seconds")
_RELAY: Final = ("listen", "allow_keys", "endpoint_url")

ReadFile = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file says, as far as it could be read.

    Attributes:
        configuration: what is right in it; only whole where there is no mistake.
        mistakes: with their places.
    """

    configuration: Configuration
    mistakes: tuple[Mistake, ...]


def parse_configuration(data: bytes, *, read_file: ReadFile) -> Configuration:
    """Reads the file.

    Args:
        data: at most `PARENT_FILE_MAX` bytes of TOML 1.0.
        read_file: gives the bytes of a file that is named in it; raises `LocalFileError`.

    Raises:
        MistakesError: something in it is wrong.
    """
    reading = read_configuration(data, read_file=read_file)
    if reading.mistakes:
        raise MistakesError(FILE_NAME, reading.mistakes)
    return reading.configuration


def read_configuration(data: bytes, *, read_file: ReadFile) -> Reading:
    """The same, for whoever wants to see what is right in a file with mistakes as well."""
    mistakes = Mistakes()
    values = _read_toml(data, mistakes)
    if values is None:
        return Reading(Configuration(), mistakes.found)
    top = Table(values, "", _TOP, mistakes)
    numbered = _routes(top, mistakes)
    configuration = Configuration(
        routes=tuple(numbered.values()),
        limits=_limits(top, mistakes),
        allowed_cids=frozenset(
            top.read_list(
                "allowed_cids",
                as_integer(0, limits.VSOCK_NUMBER_MAX),
                maximum=limits.PARENT_CIDS_MAX,
                empty="name the CIDs; to let every enclave in, leave it out",
            )
        ),
        credentials=_credentials(top, mistakes, read_file),
        relay=_relay(top, mistakes),
        metrics=top.read("metrics", lambda value: check_metrics_address(_address(value))),
    )
    if not {"forward", "credentials", "relay"} & set(values):
        mistakes.add(
            "the file",
            "it starts nothing",
            "add a [[forward]] with `listen` and `to`, [credentials] or [relay]",
        )
    if configuration.metrics and not values.get("forward"):
        mistakes.add("metrics", "only the forwarder has some", "leave it out, or add a [[forward]]")
    permitted = top.read("allowlist", lambda value: parse_allowlist(read_file(as_text(value))))
    if permitted is not None:
        _check_targets(numbered, permitted, mistakes)
    _check_listeners(configuration, _listeners(numbered, configuration), mistakes)
    return Reading(configuration, mistakes.found)


def describe(configuration: Configuration) -> list[str]:
    """A line for each service: what it listens on and what it does there."""
    lines = [f"forward: {route.listen} to {route.to}" for route in configuration.routes]
    if credentials := configuration.credentials:
        of = credentials.assume_role or "this instance"
        less = ", with a session policy" if credentials.session_policy else ""
        if credentials.only_kms:
            less = f", for {_keys(credentials.only_kms)} alone"
        lines.append(f"credentials: {credentials.listen}, those of {of}{less}")
    if relay := configuration.relay:
        lines.append(f"relay: {relay.listen}, for {_keys(relay.allow_keys)}")
    if configuration.metrics:
        lines.append(f"metrics: {configuration.metrics}")
    if configuration.allowed_cids:
        cids = ", ".join(map(str, sorted(configuration.allowed_cids)))
        lines.append(f"allowed CIDs: {cids}")
    return lines


def _listeners(routes: dict[int, Route], configuration: Configuration) -> list[tuple[str, Address]]:
    """Every address that is listened on, with the place in the file that says so."""
    found = [(_route(number), route.listen) for number, route in routes.items()]
    if configuration.credentials:
        found.append(("[credentials]", configuration.credentials.listen))
    if configuration.relay:
        found.append(("[relay]", configuration.relay.listen))
    if configuration.metrics:
        found.append(("metrics", configuration.metrics))
    return found


def _read_toml(data: bytes, mistakes: Mistakes) -> dict[str, object] | None:
    place = "the file"
    if len(data) > limits.PARENT_FILE_MAX:
        mistakes.add(place, f"it has {len(data)} bytes, more than {limits.PARENT_FILE_MAX}")
        return None
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        mistakes.add(place, "it is not UTF-8")
    except tomllib.TOMLDecodeError as error:
        mistakes.add(place, f"it is not TOML: {str(error)[:200]}", "see https://toml.io")
    except (ValueError, RecursionError):  # a number of thousands of digits, a tower of brackets
        mistakes.add(place, "it is not TOML that makes sense", "see https://toml.io")
    return None


def _routes(top: Table, mistakes: Mistakes) -> dict[int, Route]:
    """By their number in the file, since wrong ones are left out."""
    entries = top.read("forward", _as_tables) or []
    if len(entries) > limits.FORWARD_ROUTES_MAX:
        mistakes.add(
            "[[forward]]", f"there are {len(entries)}, more than {limits.FORWARD_ROUTES_MAX}"
        )
        return {}
    routes = {}
    for number, entry in enumerate(entries, start=1):
        table = Table(entry, _route(number), ("listen", "to"), mistakes)
        listen = table.read("listen", _address, needed='write listen = "vsock://:8000"')
        to = table.read(
            "to",
            lambda value: parse_target(as_text(value)),
            needed='write to = "kms.eu-west-1.amazonaws.com:443"',
        )
        if listen and to:
            routes[number] = Route(listen, to)
    return routes


def _limits(top: Table, mistakes: Mistakes) -> ForwardLimits:
    values = top.read("limits", as_table) or {}
    table = Table(values, "[limits]", tuple(_LIMITS), mistakes)
    read = {name: table.read(name, reader) for name, reader in _LIMITS.items()}
    given = {name: value for name, value in read.items() if value is not None}
    in_all = int(given.get("connections", limits.FORWARD_CONNECTIONS))
    each = given.setdefault("connections_per_cid", min(in_all, limits.FORWARD_CONNECTIONS_PER_CID))
    if each > in_all:
        mistakes.add(
            table.place("connections_per_cid"),
            f"{each:g} are more than the {in_all} connections in all",
            "lower it, or raise connections",
        )
    return ForwardLimits(**given)  # type: ignore[arg-type]  # each by its own reader


def _credentials(top: Table, mistakes: Mistakes, read_file: ReadFile) -> CredentialsSettings | None:
    values = top.read("credentials", as_table)
    if values is None:
        return None
    table = Table(values, "[credentials]", _CREDENTIALS, mistakes)
    listen = table.read(
        "listen",
        lambda value: check_credentials_address(_address(value)),
        needed='write listen = "vsock://:8002"',
    )
    given = {
        "assume_role": table.read("assume_role", lambda value: check_role_arn(as_text(value))),
        "session_policy": table.read("session_policy", lambda value: _policy(value, read_file)),
        "role_session_name": table.read(
            "role_session_name", lambda value: check_role_session_name(as_text(value))
        ),
        "duration_seconds": table.read(
            "duration_seconds",
            as_integer(limits.ROLE_SESSION_SECONDS_MIN, limits.ROLE_SESSION_SECONDS_MAX),
        ),
    }
    only_kms = table.read_list(
        "only_kms",
        _key,
        maximum=limits.PARENT_KEYS_MAX,
        empty="name the keys; to hand out all that the role may do, leave it out",
    )
    if only_kms:
        table.read("only_kms", lambda _value: session_policy_for(only_kms))  # too many for STS?
    if "assume_role" not in table:
        for name in _OF_A_ROLE:
            if name in table:
                mistakes.add(
                    table.place(name),
                    "it is about a role's session, and no role is assumed",
                    "add assume_role, which may be the instance's own role",
                )
    if "session_policy" in table and "only_kms" in table:
        mistakes.add(
            table.place("only_kms"), "there is a session_policy as well", "keep one of the two"
        )
    if listen is None:
        return None
    named = {name: value for name, value in given.items() if value is not None}
    return CredentialsSettings(listen=listen, only_kms=only_kms, **named)  # type: ignore[arg-type]


def _relay(top: Table, mistakes: Mistakes) -> RelaySettings | None:
    values = top.read("relay", as_table)
    if values is None:
        return None
    table = Table(values, "[relay]", _RELAY, mistakes)
    listen = table.read(
        "listen",
        lambda value: check_relay_address(_address(value)),
        needed='write listen = "vsock://:8001"',
    )
    needed = 'write allow_keys = ["arn:aws:kms:…:key/…"]: the relay uses no other'
    keys = table.read_list(
        "allow_keys", _key, maximum=limits.PARENT_KEYS_MAX, empty=needed, needed=needed
    )
    endpoint_url = table.read("endpoint_url", lambda value: check_endpoint_url(as_text(value)))
    if listen is None or not keys:
        return None
    return RelaySettings(listen=listen, allow_keys=keys, endpoint_url=endpoint_url)


def _check_targets(
    routes: dict[int, Route], permitted: frozenset[Target], mistakes: Mistakes
) -> None:
    names = sorted(map(str, permitted))
    for number, route in routes.items():
        if route.to in permitted:
            continue
        close = difflib.get_close_matches(str(route.to), names, n=1, cutoff=0.9)
        entry = f"- {{address: {route.to.host}, port: {route.to.port}}}"
        mistakes.add(
            f"{_route(number)}, to",
            f"{route.to} is not on the allow list",
            f"did you mean {close[0]}?" if close else f"add to it: {entry}",
        )


def _check_listeners(
    configuration: Configuration, found: list[tuple[str, Address]], mistakes: Mistakes
) -> None:
    for (place, one), (other_place, other) in combinations(found, 2):
        if collide(one, other):
            mistakes.add(
                other_place,
                f"{other} cannot be listened on beside {one} of {place}",
                "give each its own port or path",
            )
    if not configuration.allowed_cids:
        return
    for place, address in found:
        if isinstance(address, TcpAddress) and place != "metrics":
            mistakes.add(
                place,
                f"{address} has no CIDs, so allowed_cids would not keep anybody out",
                "listen on vsock://, or for tests on unix:PATH, which has the mode 0600",
            )
    if not any(isinstance(address, VsockAddress) for _, address in found):
        mistakes.add("allowed_cids", "nothing listens on a vsock://", "leave it out")


def _as_tables(value: object) -> list[dict[str, object]]:
    if isinstance(value, dict):
        raise SettingError("it is one table, and there may be several", hint="write [[forward]]")
    return [as_table(item) for item in as_list(value)]


def _address(value: object) -> Address:
    return parse_address(as_text(value), listening=True)


def _key(value: object) -> KeyArn:
    return parse_key_arn(as_text(value))


def _policy(value: object, read_file: ReadFile) -> str:
    try:
        text = read_file(as_text(value)).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SettingError("the session policy is not UTF-8") from None
    return check_session_policy(text)


def _route(number: int) -> str:
    return f"[[forward]] {number}"


def _keys(keys: tuple[KeyArn, ...]) -> str:
    return "one KMS key" if len(keys) == 1 else f"{len(keys)} KMS keys"

"""The YAML file in which AWS' vsock-proxy lists the targets that it may forward to.

Source: `check_allowlist` in vsock_proxy/src/proxy.rs of aws-nitro-enclaves-cli 1.4: a mapping with
`allowlist`, a sequence of mappings with `address` (a string) and `port` (an integer); anything else
in them is passed over. Differences, each to the safe side: a port is 1 to 65,535, where theirs is
cut to 16 bits and 65,979 lets 443 through; an entry stands for the name or address that it has,
where theirs looks both up and compares addresses; every entry is read, where theirs stops at the
first that fits; and aliases, which that file has no use for, are refused, since a few lines of them
can stand for millions.

PyYAML is imported here alone, and only when there is such a file (extra `parent`). It parses and
composes; no constructor runs, so no tag can make an object.
"""

import importlib
from typing import Any, Final

from kmstool import limits
from kmstool.errors import InputError, SettingError, quoted
from kmstool.parent.mistakes import Mistakes, MistakesError
from kmstool.parent.settings import Target, make_target

_SHAPE: Final = (
    "it looks like `allowlist:`, and below it lines like"
    " `- {address: kms.eu-west-1.amazonaws.com, port: 443}`"
)
_INT: Final = "tag:yaml.org,2002:int"
_STR: Final = "tag:yaml.org,2002:str"


def parse_allowlist(data: bytes) -> frozenset[Target]:
    """The targets that a file of vsock-proxy permits; none where its list is empty.

    Raises:
        SettingError: PyYAML is not installed.
        InputError: it is not such a file; a `MistakesError` where entries of it are wrong.
    """
    yaml = _import_yaml()
    if len(data) > limits.PARENT_ALLOWLIST_MAX:
        raise InputError(
            f"the allow list has {len(data)} bytes, more than {limits.PARENT_ALLOWLIST_MAX}"
        )
    try:
        text = data.decode("utf-8")
        _check_shape(yaml, text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError:
        raise InputError("the allow list is not UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise InputError(f"{line}the allow list is not YAML: {problem}", hint=_SHAPE) from None
    except (ValueError, OverflowError):  # PyYAML's own, for an escape beyond Unicode
        raise InputError("the allow list is not YAML", hint=_SHAPE) from None
    return _targets(yaml, root)


def _import_yaml() -> Any:
    try:
        return importlib.import_module("yaml")
    except ModuleNotFoundError:
        raise SettingError(
            "the allow list of vsock-proxy needs PyYAML, which is not installed",
            hint="pip install 'kmstool[parent]'",
        ) from None


def _check_shape(yaml: Any, text: str) -> None:
    """Refuses aliases and depth by the events, one at a time: composing would recurse."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1
            raise InputError(
                f"line {line}: the allow list has an alias (*{event.anchor[:40]})",
                hint="write the entry out",
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > limits.PARENT_ALLOWLIST_DEPTH_MAX:
                line = event.start_mark.line + 1
                raise InputError(f"line {line}: the allow list is nested too deeply", hint=_SHAPE)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _targets(yaml: Any, root: Any) -> frozenset[Target]:
    mistakes = Mistakes()
    entries = _allowlist_of(yaml, root)
    if len(entries) > limits.PARENT_ALLOWLIST_TARGETS_MAX:
        raise InputError(
            f"the allow list has {len(entries)} entries,"
            f" more than {limits.PARENT_ALLOWLIST_TARGETS_MAX}"
        )
    found: list[Target] = []
    for entry in entries:
        place = f"line {entry.start_mark.line + 1}"
        try:
            found.append(_target(yaml, entry))
        except InputError as error:
            mistakes.add(place, str(error), error.hint)
        except SettingError as error:
            mistakes.add(
                place, str(error), "a port is 1 to 65535, an address a name or an IP address"
            )
    if mistakes.found:
        raise MistakesError("the allow list", mistakes.found)
    return frozenset(found)


def _allowlist_of(yaml: Any, root: Any) -> list[Any]:
    if root is None or not isinstance(root, yaml.MappingNode):
        raise InputError("the allow list is not a mapping", hint=_SHAPE)
    members = _members(yaml, root)
    if "allowlist" not in members:
        old = "whitelist" in members
        raise InputError(
            "the allow list has no `allowlist`",
            hint="versions of 2020 wrote `whitelist`: rename it" if old else _SHAPE,
        )
    sequence = members["allowlist"]
    if not isinstance(sequence, yaml.SequenceNode):
        raise InputError("`allowlist` is not a list", hint=_SHAPE)
    return list(sequence.value)


def _target(yaml: Any, entry: Any) -> Target:
    if not isinstance(entry, yaml.MappingNode):
        raise InputError("the entry is not a mapping of address and port", hint=_SHAPE)
    members = _members(yaml, entry)
    for name in ("address", "port"):
        if name not in members:
            raise InputError(f"the entry has no {name}", hint=_SHAPE)
    address, port = members["address"], members["port"]
    if not isinstance(address, yaml.ScalarNode) or address.tag != _STR:
        raise InputError("the address is not a string", hint="put it in quotes")
    digits = port.value if isinstance(port, yaml.ScalarNode) and port.tag == _INT else ""
    # YAML 1.1 reads 0443 as octal and 4:43 as minutes, and 1.2 does not: only what both read alike.
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 10) or digits[0] == "0":
        shown = quoted(port.value) if isinstance(port, yaml.ScalarNode) else "it"
        raise InputError(
            f"the port is not a number: {shown}", hint="write it in decimal, without quotes"
        )
    return make_target(address.value, int(digits))


def _members(yaml: Any, mapping: Any) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in mapping.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        if key.value in members:
            line = key.start_mark.line + 1
            raise InputError(f"line {line}: {quoted(key.value)} stands twice in one mapping")
        members[key.value] = value
    return members

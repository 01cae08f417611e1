"""Requests held against botocore's KMS service model, and answers written as KMS writes them.

The model is walked once per operation and becomes a chain of closures: required members, types,
lengths, ranges, patterns and enumerations, all of them (botocore's own validator checks only types,
required members and minimum lengths). Two things are stricter than in KMS, to find mistakes: a
member that the model does not know is refused, and so is a name given twice. What KMS checks beyond
its model (the size of an encryption context, one of two members) is checked by the operations.

No message repeats a value whose shape the model marks as sensitive.
"""

import base64
import binascii
import gzip
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import botocore

from kmstool.emulator.refusal import Refusal, invalid

Parameters = dict[str, Any]
_Checker = Callable[[object, str, list[str]], Any]
_SHOWN_MAX = 100  # characters of a wrong value that a message repeats


class ServiceModel:
    """KMS' operations with the shapes of their requests."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._operations: dict[str, Any] = document["operations"]
        self._shapes: dict[str, Any] = document["shapes"]
        self._checkers: dict[str, _Checker] = {}
        self._requests: dict[str, _Checker] = {}

    def knows(self, operation: str) -> bool:
        """Whether KMS has an operation of this name."""
        return operation in self._operations

    def parse_request(self, operation: str, body: bytes) -> Parameters:
        """The request's members, blobs decoded, members that are null left out.

        Raises:
            Refusal: `SerializationException` where the body is not JSON of the right types,
                `ValidationException` with every constraint that is not met.
        """
        checker = self._requests.get(operation)
        if checker is None:
            shape = self._operations[operation]["input"]["shape"]
            checker = self._requests[operation] = self._compile(shape)
        errors: list[str] = []
        parameters = checker(_read_json(body), "", errors)
        if errors:
            count = f"{len(errors)} validation error{'s' if len(errors) > 1 else ''} detected: "
            raise invalid(count + "; ".join(errors))
        result: Parameters = parameters
        return result

    def _compile(self, name: str) -> _Checker:
        if name not in self._checkers:
            shape = self._shapes[name]
            compile_shape = {
                "structure": self._compile_structure,
                "list": self._compile_list,
                "map": self._compile_map,
                "string": _compile_string,
                "blob": _compile_blob,
                "integer": _compile_integer,
                "boolean": _compile_boolean,
            }[shape["type"]]
            self._checkers[name] = compile_shape(shape)
        return self._checkers[name]

    def _compile_structure(self, shape: dict[str, Any]) -> _Checker:
        members = {name: self._compile(ref["shape"]) for name, ref in shape["members"].items()}
        required = tuple(shape.get("required", ()))

        def check(value: object, path: str, errors: list[str]) -> Parameters:
            if not isinstance(value, dict):
                raise _wrong_type(path, value, "a structure")
            result: Parameters = {}
            for name, member in value.items():
                checker = members.get(name)
                if checker is None:
                    errors.append(f"The member '{_join(path, name)}' is not known")
                elif member is not None:  # KMS treats null as absent
                    result[name] = checker(member, _join(path, name), errors)
            errors.extend(
                f"Value null at '{_join(path, name)}' failed to satisfy constraint:"
                " Member must not be null"
                for name in required
                if value.get(name) is None
            )
            return result

        return check

    def _compile_list(self, shape: dict[str, Any]) -> _Checker:
        member = self._compile(shape["member"]["shape"])
        check_length = _compile_bounds(shape, "length", sensitive=False)

        def check(value: object, path: str, errors: list[str]) -> list[Any]:
            if not isinstance(value, list):
                raise _wrong_type(path, value, "a list")
            check_length(len(value), value, path, errors)
            return [
                member(item, f"{path}.{index}.member", errors)
                for index, item in enumerate(value, start=1)
            ]

        return check

    def _compile_map(self, shape: dict[str, Any]) -> _Checker:
        key_of = self._compile(shape["key"]["shape"])
        value_of = self._compile(shape["value"]["shape"])

        def check(value: object, path: str, errors: list[str]) -> dict[str, Any]:
            if not isinstance(value, dict):
                raise _wrong_type(path, value, "a map")
            return {
                key_of(name, f"{path}.key", errors): value_of(item, f"{path}.value", errors)
                for name, item in value.items()
            }

        return check


@cache
def load_service_model() -> ServiceModel:
    """The KMS model of the botocore that is installed; read once in a process.

    Read as a file: botocore's own loader would prefer a model in the user's home directory, and
    takes three times as long (measured: 20 ms of CPU time in place of 6).
    """
    folder = Path(botocore.__file__).parent / "data" / "kms"
    newest = max(path for path in folder.iterdir() if path.is_dir())
    return ServiceModel(json.loads(gzip.decompress((newest / "service-2.json.gz").read_bytes())))


def write_answer(members: Parameters) -> bytes:
    """The JSON body of an answer; `bytes` become base64, as AWS' JSON protocol has blobs."""
    return json.dumps(members, default=_write_blob, separators=(",", ":")).encode()


def _write_blob(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _read_json(body: bytes) -> object:
    try:
        return json.loads(
            body.decode("utf-8"), object_pairs_hook=_unique_names, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        raise Refusal("SerializationException", "The request body is not valid JSON") from None


def _unique_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise Refusal("SerializationException", "A name occurs twice in one JSON object")
    return result


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _join(path: str, name: str) -> str:
    lowered = name[:1].lower() + name[1:_SHOWN_MAX]
    return f"{path}.{lowered}" if path else lowered


def _wrong_type(path: str, value: object, wanted: str) -> Refusal:
    found = {dict: "a structure", list: "a list", str: "a string", bool: "a boolean"}.get(
        type(value), "null" if value is None else "a number"
    )
    where = f"'{path}'" if path else "the request body"
    return Refusal("SerializationException", f"Expected {wanted} at {where}, found {found}")


def _compile_bounds(
    shape: dict[str, Any], what: str, *, sensitive: bool
) -> Callable[[int, object, str, list[str]], None]:
    low, high = shape.get("min"), shape.get("max")
    prefix = "Member must have length" if what == "length" else "Member must have value"

    def check(size: int, value: object, path: str, errors: list[str]) -> None:
        for bound, wrong, words in (
            (high, high is not None and size > high, "less than or equal to"),
            (low, low is not None and size < low, "greater than or equal to"),
        ):
            if wrong:
                errors.append(_complaint(value, path, f"{prefix} {words} {bound}", sensitive))

    return check


def _compile_string(shape: dict[str, Any]) -> _Checker:
    sensitive = bool(shape.get("sensitive"))
    check_length = _compile_bounds(shape, "length", sensitive=sensitive)
    # Java's \w and \d, in which the model's patterns are written, mean ASCII.
    pattern = re.compile(shape["pattern"], re.ASCII) if "pattern" in shape else None
    choices = tuple(shape.get("enum", ()))

    def check(value: object, path: str, errors: list[str]) -> str:
        if not isinstance(value, str):
            raise _wrong_type(path, value, "a string")
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise Refusal("SerializationException", f"A lone surrogate stands at '{path}'")
        if choices and value not in choices:
            rule = f"Member must satisfy enum value set: [{', '.join(choices)}]"
            errors.append(_complaint(value, path, rule, sensitive))
        check_length(len(value), value, path, errors)
        if pattern and not pattern.fullmatch(value):
            rule = f"Member must satisfy regular expression pattern: {pattern.pattern}"
            errors.append(_complaint(value, path, rule, sensitive))
        return value

    return check


def _compile_blob(shape: dict[str, Any]) -> _Checker:
    check_length = _compile_bounds(shape, "length", sensitive=True)

    def check(value: object, path: str, errors: list[str]) -> bytes:
        if not isinstance(value, str):
            raise _wrong_type(path, value, "a base64 string")
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise Refusal(
                "SerializationException", f"The blob at '{path}' is not valid base64"
            ) from None
        check_length(len(data), value, path, errors)
        return data

    return check


def _compile_integer(shape: dict[str, Any]) -> _Checker:
    check_range = _compile_bounds(shape, "value", sensitive=False)

    def check(value: object, path: str, errors: list[str]) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(path, value, "an integer")
        check_range(value, value, path, errors)
        return value

    return check


def _compile_boolean(_shape: dict[str, Any]) -> _Checker:
    def check(value: object, path: str, _errors: list[str]) -> bool:
        if not isinstance(value, bool):
            raise _wrong_type(path, value, "a boolean")
        return value

    return check


def _complaint(value: object, path: str, rule: str, sensitive: bool) -> str:
    shown = "***" if sensitive else str(value)[:_SHOWN_MAX]
    return f"Value '{shown}' at '{path}' failed to satisfy constraint: {rule}"

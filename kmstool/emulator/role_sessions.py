"""Sessions of roles: what AssumeRole hands out, and the session policy that lessens one.

A session policy is evaluated by `kmstool.policy.evaluate`, as a key policy that names everybody:
its statements have no principal of their own. Rules: IAM User Guide, "Session policies": a session
may do what its role's own policies *and* the session policy allow; where a key policy names the
session itself, an Allow there stands alone; an explicit Deny anywhere wins.
"""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kmstool.errors import PolicyError
from kmstool.policy.evaluate import Decision, Policy, Request, evaluate, parse_policy
from kmstool.policy.operators import glob_matches
from kmstool.strict_json import read_object

if TYPE_CHECKING:
    from kmstool.emulator.principals import Principal

POLICY_MAX: Final = 2_048  # characters (STS API, AssumeRole)
_SESSIONS_MAX: Final = 1_024  # at once; the oldest goes
_NO_KEY: Final = "arn:aws:kms:eu-west-1:000000000000:key/00000000-0000-0000-0000-000000000000"


class SessionPolicy:
    """A session policy from its JSON text.

    Raises:
        PolicyError: it is not one that AWS would take, or uses what the evaluator does not know.
    """

    def __init__(self, text: str) -> None:
        document, fault = read_object(text.encode("utf-8", "surrogatepass"), 4 * POLICY_MAX)
        if document is None:
            raise PolicyError(f"the session policy {fault}")
        raw = document.get("Statement")
        self._document = document
        self._statements = [_checked(one) for one in (raw if isinstance(raw, list) else [raw])]
        self._policy = self._with(self._statements)

    def decide(
        self,
        action: str,
        caller: "Principal",
        resource: str,
        context: Mapping[str, tuple[str, ...]],
    ) -> Decision:
        """Whether it lets an action on a resource through.

        Args:
            resource: a key's ARN; an alias' ARN or `*` for what is about no key.
        """
        policy, known = self._policy, ":key/" in resource
        if not known:
            policy = self._with([_about(one, resource) for one in self._statements])
        request = Request(
            action=action,
            principal=caller.arn,
            resource=resource if known else _NO_KEY,
            context=context,
            session=caller.session.arn if caller.session else None,
        )
        return evaluate(policy, request, identity_allows=lambda _action: True)

    def _with(self, statements: list[dict[str, Any]]) -> Policy:
        named = [{**one, "Principal": "*"} for one in statements]
        return parse_policy(json.dumps({**self._document, "Statement": named}))


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSession:
    """What makes credentials those of a role's session.

    Attributes:
        arn: `arn:…:sts::ACCOUNT:assumed-role/ROLE/NAME`.
        expires: seconds since 1970.
        policy: None where the session may do all that its role may.
    """

    arn: str
    expires: float
    policy: SessionPolicy | None = None


class Sessions:
    """The credentials that AssumeRole has handed out, by access key. Safe in many threads."""

    def __init__(self) -> None:
        self._by_access_key: dict[str, Principal] = {}
        self._lock = threading.Lock()

    def add(self, principal: "Principal") -> None:
        """Remembers a session; expired ones too, to be able to say that they have expired."""
        with self._lock:
            if len(self._by_access_key) >= _SESSIONS_MAX:
                del self._by_access_key[next(iter(self._by_access_key))]
            self._by_access_key[principal.access_key_id] = principal

    def find(self, access_key_id: str) -> "Principal | None":
        with self._lock:
            return self._by_access_key.get(access_key_id)


def _checked(statement: object) -> dict[str, Any]:
    if not isinstance(statement, dict):
        raise PolicyError("the session policy has a statement that is not an object")
    for name in ("Principal", "NotPrincipal"):
        if name in statement:
            raise PolicyError(f"the session policy has the prohibited element {name}")
    for name in ("Action", "Resource"):
        if name not in statement and f"Not{name}" not in statement:
            raise PolicyError(f"a statement of the session policy has no {name}")
    return statement


def _about(statement: dict[str, Any], resource: str) -> dict[str, Any]:
    """The statement for a request that is about no key: its resources are compared here."""
    name = "NotResource" if "NotResource" in statement else "Resource"
    given = statement[name]
    patterns = given if isinstance(given, list) else [given]
    matches = any(isinstance(one, str) and glob_matches(one, resource) for one in patterns)
    applies = matches is not (name == "NotResource")
    rest = {key: value for key, value in statement.items() if key != name}
    return {**rest, "Resource": _NO_KEY if applies else _NO_KEY.replace("eu-west-1", "nowhere-0")}

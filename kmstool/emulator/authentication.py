"""Signature Version 4 of a request to the emulated KMS, computed again by botocore and compared.

Rules (AWS, "Signature Version 4 for API requests"): the request is rebuilt from the method, the
path and only the headers that the client says it signed; `host` and every `x-amz-*` header have to
be among them; the time may differ by five minutes; the body's hash is always our own, never the one
that a header claims. Signatures and session tokens are compared in constant time.

Query-string signatures (presigned URLs) are refused: KMS takes them, no client of ours sends them.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials

from kmstool.emulator.certificates import is_kms_host
from kmstool.emulator.principals import Principal, Principals
from kmstool.emulator.refusal import Refusal

SKEW_MAX = 300.0  # seconds, AWS' bound between the signature's time and the server's
_ALGORITHM = "AWS4-HMAC-SHA256"
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS"
    " Secret Access Key and signing method. Consult the service documentation for details."
)
_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as it came from the wire.

    Attributes:
        target: path and query, as in the request line.
        headers: by lower-case name; a header that came twice is joined with commas.
    """

    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def authenticate(
    request: HttpRequest, principals: Principals, *, region: str, now: float, service: str = "kms"
) -> Principal:
    """The principal who signed the request.

    Args:
        now: seconds since 1970.
        service: whose request it is, as in the signature's scope.

    Raises:
        Refusal: `MissingAuthenticationTokenException`, `IncompleteSignatureException`,
            `UnrecognizedClientException`, `InvalidSignatureException` or `ExpiredTokenException`.
    """
    authorization = request.headers.get("authorization")
    if not authorization:
        raise Refusal("MissingAuthenticationTokenException", "Missing Authentication Token")
    claims = _parse_authorization(authorization)
    scope = claims["Credential"].split("/")
    if len(scope) != 5:
        raise _incomplete("Credential must have exactly 5 slash-delimited elements")
    access_key_id, scope_date, scope_region, scope_service, terminator = scope
    timestamp = request.headers.get("x-amz-date", "")
    if not _DATE.fullmatch(timestamp):
        raise _incomplete("Authorization header requires existence of an 'X-Amz-Date' header")
    signed = claims["SignedHeaders"].split(";")
    _check_signed_headers(request, signed)

    principal = principals.find(access_key_id)
    if principal is None:
        raise _unrecognized()
    _check_region(scope_region, region, request.headers["host"].partition(":")[0].lower())
    if scope_service != service:
        raise _bad_signature(f"Credential should be scoped to correct service: '{service}'.")
    if terminator != "aws4_request":
        raise _bad_signature("Credential should be scoped with a valid terminator: 'aws4_request'")
    if scope_date != timestamp[:8]:
        raise _bad_signature("Date in Credential scope does not match YYYYMMDD from ISO-8601 date")
    _check_time(timestamp, now)
    expected = _sign(request, signed, timestamp, principal, (service, region))
    if not hmac.compare_digest(expected.encode(), claims["Signature"].encode()):
        raise _bad_signature(_MISMATCH)
    _check_session_token(request, principal)
    if principal.session is not None and principal.session.expires <= now:
        raise Refusal(
            "ExpiredTokenException", "The security token included in the request is expired"
        )
    return principal


class _RebuiltSignature(SigV4Auth):
    """botocore's signer over exactly the headers that the client named."""

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        headers = HTTPHeaders()
        for name, value in request.headers.items():
            headers[name] = value
        return headers


def _sign(
    request: HttpRequest,
    signed: list[str],
    timestamp: str,
    principal: Principal,
    scope: tuple[str, str],
) -> str:
    rebuilt = AWSRequest(
        method=request.method,
        url=f"https://{request.headers['host']}/",
        data=request.body,
        headers={name: request.headers[name] for name in signed},
    )
    rebuilt.context["timestamp"] = timestamp
    credentials = Credentials(principal.access_key_id, principal.secret_access_key)
    signer = _RebuiltSignature(credentials, *scope)
    canonical = signer.canonical_request(rebuilt)
    return str(signer.signature(signer.string_to_sign(rebuilt, canonical), rebuilt))


def _parse_authorization(text: str) -> dict[str, str]:
    algorithm, _, rest = text.partition(" ")
    if algorithm != _ALGORITHM:
        raise _incomplete(f"Unsupported AWS 'algorithm': '{algorithm[:64]}'")
    claims: dict[str, str] = {}
    for part in rest.split(","):
        name, _, value = part.strip().partition("=")
        if name in claims:
            raise _incomplete(f"Authorization header holds '{name[:64]}' twice")
        claims[name] = value
    for name in ("Credential", "Signature", "SignedHeaders"):
        if not claims.get(name):
            raise _incomplete(f"Authorization header requires '{name}' parameter")
    return claims


def _check_signed_headers(request: HttpRequest, signed: list[str]) -> None:
    if sorted(set(signed)) != signed or any(name != name.lower() for name in signed):
        raise _incomplete("SignedHeaders must be lower case, sorted and unique")
    for name in signed:
        if name not in request.headers:
            raise _bad_signature(f"The signed header '{name[:64]}' is not in the request")
    for name in request.headers:
        # An unsigned X-Amz-Target would let anybody on the way turn one operation into another.
        if (name == "host" or name.startswith("x-amz-")) and name not in signed:
            raise _bad_signature(f"'{name}' must be a 'SignedHeader' in the AWS Authorization.")
    if "host" not in signed:
        raise _bad_signature("'Host' must be a 'SignedHeader' in the AWS Authorization.")
    claimed = request.headers.get("x-amz-content-sha256")
    if claimed is not None and claimed != hashlib.sha256(request.body).hexdigest():
        # botocore, asked to sign, believes this header; a server must not.
        raise _bad_signature("The header 'x-amz-content-sha256' is not the hash of the body")


def _check_region(claimed: str, region: str, host: str) -> None:
    # In AWS a host leads to the KMS of its own region, for which the scope would be a wrong one.
    if claimed != region or (is_kms_host(host) and region not in host.split(".")):
        raise _bad_signature(
            f"Credential should be scoped to a valid region, not '{claimed[:64]}' for host"
            f" '{host[:64]}': this KMS is in '{region}'"
        )


def _check_time(timestamp: str, now: float) -> None:
    try:
        moment = datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise _incomplete("Date must be in ISO-8601 'basic format'") from None
    age = now - moment.timestamp()
    server = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    if age > SKEW_MAX:
        raise _bad_signature(
            f"Signature expired: {timestamp} is more than 5 min. earlier than {server}"
        )
    if age < -SKEW_MAX:
        raise _bad_signature(
            f"Signature not yet current: {timestamp} is more than 5 min. later than {server}"
        )


def _check_session_token(request: HttpRequest, principal: Principal) -> None:
    given = request.headers.get("x-amz-security-token")
    wanted = principal.session_token
    if wanted is None and given is None:
        return
    if wanted is None or given is None or not hmac.compare_digest(given.encode(), wanted.encode()):
        raise _unrecognized()


def _unrecognized() -> Refusal:
    return Refusal(
        "UnrecognizedClientException", "The security token included in the request is invalid."
    )


def _incomplete(message: str) -> Refusal:
    return Refusal("IncompleteSignatureException", message)


def _bad_signature(message: str) -> Refusal:
    return Refusal("InvalidSignatureException", message)

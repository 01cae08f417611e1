"""The SigV4 signature of the one shape of request that kmstool sends: `POST /` with a JSON body.

No query, no other path, no other service, so nothing here normalises anything. It never logs. A
mistake fails closed: KMS answers 403. Source: "Create a signed AWS API request", IAM User Guide.
"""

import hashlib
import hmac
from datetime import UTC, datetime

from kmstool.enclave.credentials import Credentials

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "kms"
CONTENT_TYPE = "application/x-amz-json-1.1"


def sign(
    *, host: str, region: str, target: str, body: bytes, credentials: Credentials, now: datetime
) -> dict[str, str]:
    """All headers to send with `POST /`, the signature among them.

    Args:
        host: as `arn.parse_host` or `arn.kms_host` returned it: lower case, no port.
        target: of the operation, `TrentService.Decrypt` or alike.
        now: with its time zone; KMS allows five minutes of difference.
    """
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {"Content-Type": CONTENT_TYPE, "Host": host, "X-Amz-Date": stamp}
    if credentials.session_token is not None:
        headers["X-Amz-Security-Token"] = credentials.session_token
    headers["X-Amz-Target"] = target  # the five stand in the order in which they are signed
    names = ";".join(headers).lower()
    lines = "".join(f"{name.lower()}:{value}\n" for name, value in headers.items())
    request = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"

    scope = f"{stamp[:8]}/{region}/{SERVICE}/aws4_request"
    digest = hashlib.sha256(request.encode("ascii")).hexdigest()
    key = f"AWS4{credentials.secret_access_key}".encode("ascii")
    for part in (*scope.split("/"), f"{ALGORITHM}\n{stamp}\n{scope}\n{digest}"):
        key = hmac.digest(key, part.encode("ascii"), "sha256")
    headers["Authorization"] = (
        f"{ALGORITHM} Credential={credentials.access_key_id}/{scope}, SignedHeaders={names},"
        f" Signature={key.hex()}"
    )
    # Unsigned, as botocore leaves them: the length is implied by the signed hash of the body.
    headers["Content-Length"] = str(len(body))
    headers["User-Agent"] = "kmstool"
    return headers

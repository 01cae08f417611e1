"""A CloudTrail event of an attested Decrypt, to be changed.

It has the form that AWS KMS Developer Guide, "Monitoring requests for Nitro enclaves" and
"Decrypt", shows; PCRs are base64, as real events have them (FACTS).
"""

import base64
from typing import Any

from support.denials import ACCOUNT, KEY, PCRS, ROLE

SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/enclave/i-0123456789abcdef0"
RECIPIENT = {
    "attestationDocumentModuleId": "i-0123456789abcdef0-enc0123456789abcdef",
    "attestationDocumentEnclaveImageDigest": base64.b64encode(PCRS[0]).decode(),
    **{
        f"attestationDocumentEnclavePCR{index}": base64.b64encode(
            PCRS.get(index, bytes(48))
        ).decode()
        for index in (1, 2, 3, 4, 8)
    },
}
EVENT: dict[str, Any] = {
    "eventVersion": "1.11",
    "userIdentity": {
        "type": "AssumedRole",
        "principalId": "AROAEXAMPLE123456789:i-0123456789abcdef0",
        "arn": SESSION,
        "accountId": ACCOUNT,
        "sessionContext": {"sessionIssuer": {"type": "Role", "arn": ROLE, "accountId": ACCOUNT}},
    },
    "eventTime": "2026-05-01T12:00:00Z",
    "eventSource": "kms.amazonaws.com",
    "eventName": "Decrypt",
    "awsRegion": "eu-central-1",
    "sourceIPAddress": "192.0.2.1",
    "userAgent": "kmstool",
    "requestParameters": {
        "encryptionAlgorithm": "SYMMETRIC_DEFAULT",
        "keyId": KEY,
        "encryptionContext": {"tenant": "blue"},
    },
    "responseElements": None,
    "additionalEventData": {"recipient": RECIPIENT},
    "requestID": "b4a65126-30d5-4b28-98b9-9153da559963",
    "eventID": "e5a2f202-ba1a-467c-b4ba-f729d45ae521",
    "resources": [{"accountId": ACCOUNT, "type": "AWS::KMS::Key", "ARN": KEY}],
}
DENIED = {"errorCode": "AccessDenied", "errorMessage": "…", "additionalEventData": None}

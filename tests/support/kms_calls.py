"""What tests ask of the emulated KMS through botocore: keys, policies, refusals."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from kmstool.emulator.principals import ADMIN_ARN, ENCLAVE_ARN


def make_key(kms: Any, **parameters: Any) -> str:
    arn: str = kms.create_key(**parameters)["KeyMetadata"]["Arn"]
    return arn


def refused(code: str, operation: Callable[..., Any], **request: Any) -> str:
    """Asserts that KMS refuses with this code; returns its message."""
    with pytest.raises(ClientError) as error:
        operation(**request)
    assert error.value.response["Error"]["Code"] == code
    message: str = error.value.response["Error"]["Message"]
    return message


def locked_policy(pcrs: dict[int, bytes], **conditions: dict[str, str]) -> str:
    """The administrator manages, and only the enclave role with these PCRs uses."""
    values = {f"kms:RecipientAttestation:PCR{n}": value.hex() for n, value in pcrs.items()}
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "manage",
                    "Effect": "Allow",
                    "Principal": {"AWS": ADMIN_ARN},
                    "Action": ["kms:*Key*", "kms:Encrypt", "kms:PutKeyPolicy", "kms:GetKeyPolicy"],
                    "Resource": "*",
                },
                {
                    "Sid": "use",
                    "Effect": "Allow",
                    "Principal": {"AWS": ENCLAVE_ARN},
                    "Action": ["kms:Decrypt", "kms:GenerateDataKey", "kms:DeriveSharedSecret"],
                    "Resource": "*",
                    "Condition": {"StringEqualsIgnoreCase": values, **conditions},
                },
            ],
        }
    )

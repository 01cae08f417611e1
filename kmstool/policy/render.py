"""A key policy as a resource of Terraform or CloudFormation: the key, its policy, and no more.

Both set what a locked key needs when it is made: material from KMS, one region, and no lockout
check, which refuses every policy that nobody can change. CloudFormation keeps the key when the
resource goes, Terraform refuses to destroy it while the block stands. The policy is the same JSON
in all forms.

Source: Terraform Registry, `aws_kms_key`; CloudFormation Template Reference, `AWS::KMS::Key`; HCL
native syntax specification (object constructors take JSON's colons; `${` and `%{` begin templates).
"""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from kmstool.policy.design import KeyPolicy

DESCRIPTION: Final = "opens for the enclave images that its policy names"


def render_json(policy: KeyPolicy) -> str:
    """The canonical text, in one line."""
    return policy.text + "\n"


def render_terraform(policy: KeyPolicy) -> str:
    """A resource `aws_kms_key.enclave`."""
    body = _pretty(json.loads(policy.text)).replace("${", "$${").replace("%{", "%%{")
    body = body.replace("\n", "\n  ")
    return f'''resource "aws_kms_key" "enclave" {{
  description                        = {json.dumps(DESCRIPTION)}
  key_usage                          = "{policy.key_usage}"
  customer_master_key_spec           = "{policy.key_spec}"
  multi_region                       = false
  bypass_policy_lockout_safety_check = true
  policy = jsonencode({body})

  lifecycle {{
    prevent_destroy = true
  }}
}}
'''


def render_cloudformation(policy: KeyPolicy) -> str:
    """A template in JSON with the resource `EnclaveKey`."""
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Resources": {
            "EnclaveKey": {
                "Type": "AWS::KMS::Key",
                "DeletionPolicy": "Retain",
                "UpdateReplacePolicy": "Retain",
                "Properties": {
                    "Description": DESCRIPTION,
                    "KeySpec": policy.key_spec,
                    "KeyUsage": policy.key_usage,
                    "Origin": "AWS_KMS",
                    "MultiRegion": False,
                    "BypassPolicyLockoutSafetyCheck": True,
                    "KeyPolicy": json.loads(policy.text),
                },
            }
        },
    }
    return _pretty(template) + "\n"


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2)


RENDERERS: Final[Mapping[str, Callable[[KeyPolicy], str]]] = MappingProxyType(
    {
        "json": render_json,
        "terraform": render_terraform,
        "cloudformation": render_cloudformation,
    }
)

"""What may be asked of `policy build`, what it refuses, and how it is written down."""

import json
from typing import Any

import hcl2
import pytest
from botocore.session import Session
from support.births import ACCOUNT, ADMINISTRATOR, IMAGE, SUCCESSOR

from kmstool.caveats import MIXED_IMAGES, NOT_LOCKED, OUTSIDERS_MAY_SEAL, PCR0_ALONE, Caveat
from kmstool.errors import SettingError
from kmstool.limits import POLICY_IMAGES_MAX
from kmstool.policy.actions import WAYS_AROUND
from kmstool.policy.build import KEY_KINDS, Image, LockedPolicy, read_locked_policy
from kmstool.policy.design import OUTSIDERS_ACTIONS, KeyPolicy, Outsiders
from kmstool.policy.parse import parse_policy
from kmstool.policy.render import RENDERERS, render_cloudformation, render_json, render_terraform

SYMMETRIC = "SYMMETRIC_DEFAULT"
ALONE = {0: IMAGE[0]}


def design(**changes: Any) -> KeyPolicy:
    fields: dict[str, Any] = {"account": ACCOUNT, "key_spec": SYMMETRIC, "images": (IMAGE,)}
    return KeyPolicy(**fields | changes)


def statements(policy: KeyPolicy) -> dict[str, Any]:
    return {one["Sid"]: one for one in json.loads(policy.text)["Statement"]}


@pytest.mark.parametrize("key_spec", KEY_KINDS)
@pytest.mark.parametrize("administrator", [None, ADMINISTRATOR])
def test_without_a_wish_it_is_the_policy_of_create_key(
    key_spec: str, administrator: str | None
) -> None:
    policy = design(
        key_spec=key_spec,
        images=(SUCCESSOR, IMAGE | {8: b"\xa8" * 48}),
        administrator=administrator,
    )
    locked = LockedPolicy(
        account=ACCOUNT,
        key_spec=key_spec,
        images=(Image(IMAGE | {8: b"\xa8" * 48}), Image(SUCCESSOR)),
        administrator=administrator,
    )
    assert policy.text == locked.text
    assert read_locked_policy(policy.text, key_spec=key_spec) == locked
    assert policy.caveats == ()


@pytest.mark.parametrize(
    ("changes", "caveats"),
    [
        ({"pcr0_alone": True, "images": (ALONE,)}, [PCR0_ALONE]),
        ({"root_delegation": True}, []),
        ({"root_delegation": True, "images": (IMAGE, SUCCESSOR)}, [MIXED_IMAGES]),
        ({"root_delegation": True, "keep_put_key_policy": True}, [NOT_LOCKED]),
        ({"outsiders": frozenset({Outsiders.ENCRYPT})}, [OUTSIDERS_MAY_SEAL]),
        ({"tools": True}, []),
        ({"images": (IMAGE, SUCCESSOR)}, []),
    ],
)
def test_what_weakens_it_says_so(changes: dict[str, Any], caveats: list[Caveat]) -> None:
    assert list(design(**changes).caveats) == caveats


@pytest.mark.parametrize("wish", Outsiders)
def test_what_outsiders_may_has_no_attestation_and_is_not_denied(wish: Outsiders) -> None:
    for delegation in (False, True):
        found = statements(design(outsiders=frozenset({wish}), root_delegation=delegation))
        opened = set(OUTSIDERS_ACTIONS[wish])
        assert set(found["Outsiders"]["Action"]) == opened
        assert found["Outsiders"]["Condition"] == {"StringEquals": {"kms:CallerAccount": ACCOUNT}}
        for name, one in found.items():
            if name.startswith("Deny"):
                assert not opened.intersection(one["Action"])


def test_every_wish_of_outsiders_at_once() -> None:
    found = statements(design(outsiders=frozenset(Outsiders), root_delegation=True))
    assert "DenySealing" not in found
    assert set(found["DenyOtherPCR0"]["Action"]) == {"kms:Decrypt", "kms:DeriveSharedSecret"}


def test_a_delegation_has_one_deny_for_each_register_and_one_over_the_ways_around() -> None:
    found = statements(design(root_delegation=True, images=(IMAGE, SUCCESSOR)))
    assert found["Root"]["Principal"] == {"AWS": ACCOUNT}
    for index in IMAGE:
        one = found[f"DenyOtherPCR{index}"]
        key = f"kms:RecipientAttestation:PCR{index}"
        values = [IMAGE[index].hex(), SUCCESSOR[index].hex()]
        assert one["Condition"] == {"StringNotEqualsIgnoreCase": {key: values}}
        assert (one["Effect"], one["Principal"]) == ("Deny", {"AWS": "*"})
    assert found["DenyWaysAround"]["Action"] == list(WAYS_AROUND)
    assert "Condition" not in found["DenyWaysAround"]
    kept = statements(design(root_delegation=True, keep_put_key_policy=True))
    assert set(WAYS_AROUND) - set(kept["DenyWaysAround"]["Action"]) == {"kms:PutKeyPolicy"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": ()}, "0 images were named"),
        ({"images": (ALONE,)}, "the image has no PCR1"),
        ({"images": (IMAGE,), "pcr0_alone": True}, "PCR1 or PCR2 is given"),
        ({"images": ({1: IMAGE[1]},), "pcr0_alone": True}, "the image has no PCR0"),
        ({"images": (IMAGE | {0: bytes(48)},)}, "PCR0 is zero"),
        ({"images": (IMAGE | {3: bytes(48)},)}, "PCR3 is zero"),
        ({"images": ({0: bytes(48)},), "pcr0_alone": True}, "PCR0 is zero"),
        ({"images": (IMAGE | {32: IMAGE[0]},)}, "there is no PCR32"),
        ({"images": (IMAGE | {2: b"\xa3" * 47},)}, "PCR2 has 47 bytes"),
        ({"images": (IMAGE, IMAGE)}, "an image is named twice"),
        ({"images": (ALONE, ALONE), "pcr0_alone": True}, "an image is named twice"),
        ({"account": "1234"}, "is not an account id"),
        ({"key_spec": "HMAC_256"}, "cannot be locked to an image"),
        ({"administrator": f"arn:aws:iam::{ACCOUNT}:root"}, "not the ARN of a role or user"),
        ({"keep_put_key_policy": True}, "PutKeyPolicy is only kept where"),
        (
            {"root_delegation": True, "images": (IMAGE, SUCCESSOR | {8: b"\x01" * 48})},
            "name different registers",
        ),
        (
            {"key_spec": "ECC_NIST_P256", "outsiders": frozenset({Outsiders.ENCRYPT})},
            "nothing to open to outsiders",
        ),
        (
            {"key_spec": "RSA_2048", "outsiders": frozenset({Outsiders.GENERATE_DATA_KEY})},
            "generates no data keys",
        ),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        design(**changes)


def test_a_policy_that_kms_would_not_take() -> None:
    images = tuple(
        {index: bytes([number + 1, index]) * 24 for index in range(32)}
        for number in range(POLICY_IMAGES_MAX)
    )
    with pytest.raises(SettingError, match="KMS takes 32768"):
        design(images=images)


# --- As JSON, Terraform, CloudFormation ---------------------------------------------------------

EVERYTHING: dict[str, Any] = {
    "images": (IMAGE, SUCCESSOR),
    "administrator": ADMINISTRATOR,
    "outsiders": frozenset(Outsiders),
    "root_delegation": True,
    "keep_put_key_policy": True,
    "tools": True,
}
DESIGNS = [{}, EVERYTHING, {"key_spec": "ECC_NIST_P384", "tools": True}]


@pytest.mark.parametrize("changes", DESIGNS)
def test_json_is_canonical(changes: dict[str, Any]) -> None:
    policy = design(**changes)
    text = render_json(policy)
    assert text == policy.text + "\n"
    canonical = json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    assert text == canonical + "\n"


@pytest.mark.parametrize("changes", DESIGNS)
def test_terraform_is_read_by_an_hcl_parser(changes: dict[str, Any]) -> None:
    policy = design(**changes)
    (resource,) = hcl2.loads(render_terraform(policy))["resource"]
    key = plain(resource)["aws_kms_key"]["enclave"]
    assert key["multi_region"] is False
    assert key["bypass_policy_lockout_safety_check"] is True
    assert key["key_usage"] == policy.key_usage
    assert key["customer_master_key_spec"] == policy.key_spec
    assert key["lifecycle"][0]["prevent_destroy"] is True
    # The parser gives the call back in HCL's own way of writing an object.
    call = key["policy"].removeprefix("${jsonencode(").removesuffix(")}")
    written = json.loads(call.replace('" = ', '": '))
    assert parse_policy(json.dumps(written)) == parse_policy(policy.text)


def plain(value: Any) -> Any:
    """The parser keeps the quotation marks of strings."""
    if isinstance(value, dict):
        return {str(plain(name)): plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1]
    return value


@pytest.mark.parametrize("changes", DESIGNS)
def test_cloudformation_is_a_template_with_the_key(changes: dict[str, Any]) -> None:
    policy = design(**changes)
    template = json.loads(render_cloudformation(policy))
    (resource,) = template["Resources"].values()
    assert resource["Type"] == "AWS::KMS::Key"
    assert resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == "Retain"
    properties = resource["Properties"]
    assert parse_policy(json.dumps(properties["KeyPolicy"])) == parse_policy(policy.text)
    assert properties["MultiRegion"] is False
    assert properties["BypassPolicyLockoutSafetyCheck"] is True
    # Its properties are named as the parameters of CreateKey are, the policy aside.
    shape = Session().get_service_model("kms").operation_model("CreateKey").input_shape
    assert shape is not None
    assert set(properties) - {"KeyPolicy"} <= set(shape.members)
    for name in ("KeySpec", "KeyUsage", "Origin"):
        assert properties[name] in shape.members[name].metadata["enum"]


def test_what_terraform_and_cloudformation_read_is_given_to_the_account() -> None:
    tools = statements(design(tools=True))["Tools"]
    assert tools["Action"] == ["kms:GetKeyRotationStatus", "kms:ListResourceTags"]
    assert tools["Condition"] == {"StringEquals": {"kms:CallerAccount": ACCOUNT}}


def test_the_forms_are_ascii() -> None:
    for render in RENDERERS.values():
        assert render(design(**EVERYTHING)).isascii()

"""A key made inside: what is asked for, what has to come back, and what an error says of it."""

import json
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from support.bent_admin import HOST, Bend, BentAdmin, admin_of, module_of
from support.bent_kms import _CHAIN, InProcessNsm
from support.births import ACCOUNT, ADMINISTRATOR, IMAGE, KEY_ARN, SUCCESSOR, locked_policy

from kmstool import limits
from kmstool.birth import verify_birth_certificate
from kmstool.caveats import CUSTOM_ROOTS
from kmstool.create_key import Born, make_key
from kmstool.enclave.nsm import Nsm
from kmstool.errors import (
    DocumentError,
    KmsError,
    KmstoolError,
    NsmError,
    SettingError,
    TransportError,
    UntrustedAnswerError,
)
from kmstool.policy.build import KEY_KINDS

LOCKED_MORE = IMAGE | {3: b"\xc3" * 48, 8: b"\xc8" * 48}


def make(
    kms: BentAdmin, module: InProcessNsm | None = None, host: str = HOST, **options: Any
) -> Born:
    values: dict[str, Any] = {
        "account": ACCOUNT,
        "key_spec": "ECC_NIST_P256",
        "sleep": lambda _seconds: None,
        **options,
    }
    return make_key(Nsm(module or module_of()), admin_of(kms, host=host), **values)


def verify(born: Born, **expected: Any) -> Any:
    values: dict[str, Any] = {"pcrs": IMAGE, "account": ACCOUNT, **expected}
    return verify_birth_certificate(born.certificate, root_der=_CHAIN.root_der, **values)


@pytest.mark.parametrize("spec", KEY_KINDS)
def test_a_key_of_each_kind(spec: str) -> None:
    kms = BentAdmin()
    created: list[str] = []
    born = make(
        kms,
        key_spec=spec,
        administrator=ADMINISTRATOR,
        caveats=(CUSTOM_ROOTS,),
        created=lambda key: created.append(str(key)),
    )
    assert created == [KEY_ARN]
    assert json.loads(kms.made["Policy"]) == locked_policy(
        IMAGE, key_spec=spec, administrator=ADMINISTRATOR
    )
    assert kms.made["BypassPolicyLockoutSafetyCheck"] is True
    assert (kms.made["Origin"], kms.made["MultiRegion"]) == ("AWS_KMS", False)
    verified = verify(born)
    assert (str(verified.key), verified.key_spec) == (KEY_ARN, spec)
    assert verified.key_usage == kms.made["KeyUsage"]
    assert verified.public_key == kms.public_key
    assert verified.administrator == ADMINISTRATOR
    assert verified.caveats == born.caveats == (CUSTOM_ROOTS,)
    assert verified.policy == kms.made["Policy"]
    asked = kms.asked()
    assert asked[0] == "CreateKey"
    assert set(asked[1:]) == {"DescribeKey", "GetKeyPolicy", "ListGrants"} | (
        set() if spec == "SYMMETRIC_DEFAULT" else {"GetPublicKey"}
    )
    assert len(asked) == len(set(asked))


def test_more_images_and_more_registers() -> None:
    kms = BentAdmin()
    born = make(kms, module_of(LOCKED_MORE), lock_pcrs=(8, 3), also_images=(SUCCESSOR,))
    assert json.loads(kms.made["Policy"]) == locked_policy(
        LOCKED_MORE, SUCCESSOR, key_spec="ECC_NIST_P256"
    )
    verified = verify(born, also_images=(SUCCESSOR,))
    assert verified.pcrs == LOCKED_MORE
    assert verified.images == (LOCKED_MORE, SUCCESSOR)


def test_the_document_is_the_last_thing_and_carries_the_tag() -> None:
    module = module_of()
    make(BentAdmin(), module)
    assert [next(iter(one)) for one in module.requests] == ["DescribePCR"] * 3 + ["Attestation"]
    fields = module.requests[-1]["Attestation"]
    assert fields["user_data"].startswith(b"kmstool-birth-1")
    assert len(fields["user_data"]) == 15 + 48
    assert (fields["nonce"], fields["public_key"]) == (None, None)


# --- Refused before KMS hears of it ------------------------------------------------------------


class OpenRegister(InProcessNsm):
    """A module in which a register is not locked."""

    def __init__(self, index: int) -> None:
        super().__init__(LOCKED_MORE)
        self._index = index

    def exchange(self, request: bytes) -> bytes:
        answer = cbor2.loads(super().exchange(request))
        if self.requests[-1] == {"DescribePCR": {"index": self._index}}:
            answer["DescribePCR"]["lock"] = False
        return cbor2.dumps(answer)


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (module_of({}), {}, "PCR0 of this enclave is zero"),
        (module_of(IMAGE | {1: bytes(48)}), {}, "PCR1 of this enclave is zero"),
        (module_of(), {"lock_pcrs": (3,)}, "PCR3 of this enclave is zero"),
        (module_of(), {"lock_pcrs": (16,)}, "PCR16 of this enclave is not locked"),
        (OpenRegister(0), {}, "PCR0 of this enclave is not locked"),
        (OpenRegister(2), {}, "PCR2 of this enclave is not locked"),
        (OpenRegister(8), {"lock_pcrs": (8,)}, "PCR8 of this enclave is not locked"),
        (module_of(), {"lock_pcrs": (32,)}, "there is no PCR 32"),
        (module_of(), {"also_images": ({0: IMAGE[0]},)}, "the image has no PCR1"),
        (module_of(), {"also_images": (IMAGE,)}, "an image is named twice"),
        (module_of(), {"account": "1"}, "is not an account id"),
        (module_of(), {"key_spec": "HMAC_256"}, "cannot be locked"),
        (module_of(), {"administrator": "admin"}, "is not the ARN of a role"),
        (module_of(), {"host": "kms.example.com"}, "is not one of KMS in eu-west-1"),
        (module_of(), {"host": "kms.eu-west-2.amazonaws.com"}, "is not one of KMS in eu-west-1"),
    ],
)
def test_nothing_is_sent_for_what_cannot_be_locked(
    module: InProcessNsm, options: dict[str, Any], message: str
) -> None:
    kms = BentAdmin()
    with pytest.raises(SettingError, match=message):
        make(kms, module, **options)
    assert kms.requests == []


def test_the_hint_tells_debug_mode_from_an_empty_register() -> None:
    with pytest.raises(SettingError) as debug:
        make(BentAdmin(), module_of({}))
    with pytest.raises(SettingError) as empty:
        make(BentAdmin(), lock_pcrs=(3,))
    assert "debug mode" in str(debug.value.hint)
    assert "debug mode" not in str(empty.value.hint)


# --- What has to come back ---------------------------------------------------------------------


def metadata(**change: object) -> Bend:
    return lambda answer: answer["KeyMetadata"].update(change)


def policy(change: Callable[[dict[str, Any]], object]) -> Bend:
    def bend(answer: dict[str, Any]) -> None:
        members = json.loads(answer["Policy"])
        change(members)
        answer["Policy"] = json.dumps(members, indent=2)

    return bend


FOREIGN = {
    "AWSAccountId": "444455556666",
    "Arn": KEY_ARN.replace(ACCOUNT, "444455556666"),
}
REPLICABLE = {
    "MultiRegion": True,
    "Arn": KEY_ARN.rpartition("/")[0] + "/mrk-" + "0" * 32,
    "KeyId": "mrk-" + "0" * 32,
}
LIES: dict[str, tuple[str, Bend, str]] = {
    "another account": ("CreateKey", metadata(**FOREIGN), "account is 444455556666, not 1111"),
    "another region": (
        "CreateKey",
        metadata(Arn=KEY_ARN.replace("eu-west-1", "eu-west-2")),
        "region is eu-west-2, not eu-west-1",
    ),
    "another spec": ("DescribeKey", metadata(KeySpec="ECC_NIST_P384"), "KeySpec is ECC_NIST_P384"),
    "another usage": ("DescribeKey", metadata(KeyUsage="SIGN_VERIFY"), "KeyUsage is SIGN_VERIFY"),
    "imported": ("DescribeKey", metadata(Origin="EXTERNAL"), "Origin is EXTERNAL, not AWS_KMS"),
    "imported at once": ("CreateKey", metadata(Origin="EXTERNAL"), "Origin is EXTERNAL"),
    "multi-region": ("CreateKey", metadata(**REPLICABLE), "MultiRegion is true, not false"),
    "says multi-region later": ("DescribeKey", metadata(MultiRegion=True), "MultiRegion is true"),
    "disabled": ("DescribeKey", metadata(KeyState="Disabled"), "KeyState is Disabled"),
    "of AWS": ("DescribeKey", metadata(KeyManager="AWS"), "KeyManager is AWS, not CUSTOMER"),
    "a policy of KMS' own choice": (
        "GetKeyPolicy",
        policy(lambda p: p["Statement"].append({**p["Statement"][0], "Action": "kms:*"})),
        "live key policy is not the one asked for",
    ),
    "locked to another image": (
        "GetKeyPolicy",
        lambda answer: answer.update(
            Policy=json.dumps(locked_policy(SUCCESSOR, key_spec="ECC_NIST_P256"))
        ),
        "locked, but not to what was asked for",
    ),
    "an administrator more": (
        "GetKeyPolicy",
        lambda answer: answer.update(
            Policy=json.dumps(
                locked_policy(IMAGE, key_spec="ECC_NIST_P256", administrator=ADMINISTRATOR)
            )
        ),
        "locked, but not to what was asked for",
    ),
    "a grant": (
        "ListGrants",
        lambda answer: answer.update(Grants=[{"GrantId": "abc"}]),
        "the key has 1 grants, the first is abc",
    ),
    "a public key of another curve": (
        "GetPublicKey",
        lambda answer: answer.update(PublicKey="MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE"),
        "public key",
    ),
    "another spec of the public key": (
        "GetPublicKey",
        lambda answer: answer.update(KeySpec="ECC_NIST_P384"),
        "KeySpec of the public key is ECC_NIST_P384",
    ),
    "another usage of the public key": (
        "GetPublicKey",
        lambda answer: answer.update(KeyUsage="SIGN_VERIFY"),
        "KeyUsage of the public key is SIGN_VERIFY",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_what_kms_may_not_answer(name: str) -> None:
    operation, bend, message = LIES[name]
    kms, module = BentAdmin({operation: bend}), module_of()
    with pytest.raises((UntrustedAnswerError, DocumentError), match=message) as error:
        make(kms, module)
    said = str(error.value)
    assert "; the key arn:aws:kms:" in said
    assert said.endswith("exists now, without a birth certificate")
    assert "do not use the key" in str(error.value.hint)
    assert not any("Attestation" in request for request in module.requests)


def test_a_policy_in_another_form_is_accepted() -> None:
    kms = BentAdmin(
        {"GetKeyPolicy": policy(lambda p: p["Statement"][0].update(Principal="*", Resource=["*"]))}
    )
    verified = verify(make(kms))
    assert verified.policy == kms.made["Policy"]  # the certificate has the canonical one


@pytest.mark.parametrize(
    ("operation", "trouble", "kind"),
    [
        ("DescribeKey", (400, "AccessDeniedException"), KmsError),
        ("GetKeyPolicy", (400, "NotFoundException"), KmsError),
        ("GetPublicKey", (400, "DisabledException"), KmsError),
        ("ListGrants", TransportError("no route"), TransportError),
    ],
)
def test_every_failure_after_the_key_names_it(
    operation: str, trouble: Any, kind: type[KmstoolError]
) -> None:
    kms = BentAdmin(troubles={operation: [trouble] * 20})
    with pytest.raises(kind, match=f"the key {KEY_ARN} exists now") as error:
        make(kms, administrator=ADMINISTRATOR)
    assert "aws kms schedule-key-deletion --region eu-west-1 --key-id 1234abcd" in str(
        error.value.hint
    )
    assert ADMINISTRATOR in str(error.value.hint)


def test_without_an_administrator_the_hint_says_that_it_stays() -> None:
    kms = BentAdmin(troubles={"ListGrants": [(400, "DisabledException")]})
    with pytest.raises(KmsError) as error:
        make(kms)
    assert "no administrator was named: it stays" in str(error.value.hint)


class FailingModule(InProcessNsm):
    """A module that describes and does not sign, or signs something else."""

    def __init__(self, change: Callable[[dict[str, Any]], object] | None) -> None:
        super().__init__(IMAGE)
        self._change = change

    def exchange(self, request: bytes) -> bytes:
        fields = cbor2.loads(request)
        if "Attestation" not in fields:
            return super().exchange(request)
        if self._change is None:
            return cbor2.dumps({"Error": "InternalError"})
        self._change(fields["Attestation"])
        return super().exchange(cbor2.dumps(fields))


def test_a_module_that_does_not_sign() -> None:
    with pytest.raises(NsmError, match=f"the key {KEY_ARN} exists now"):
        make(BentAdmin(), FailingModule(None))


def test_a_module_that_signs_something_else() -> None:
    for change in ({"user_data": b"other"}, {"user_data": None}):
        with pytest.raises(DocumentError, match=r"of other content.* exists now"):
            make(BentAdmin(), FailingModule(lambda fields, c=change: fields.update(c)))  # type: ignore[misc]


def test_a_module_whose_document_has_other_pcrs() -> None:
    class Two(InProcessNsm):
        def exchange(self, request: bytes) -> bytes:
            if "Attestation" in cbor2.loads(request):
                return InProcessNsm(SUCCESSOR).exchange(request)
            return super().exchange(request)

    with pytest.raises(DocumentError, match=r"of other content.* exists now"):
        make(BentAdmin(), Two(IMAGE))


@pytest.mark.parametrize("code", ["NotFoundException", "AccessDeniedException"])
@pytest.mark.parametrize("operation", ["DescribeKey", "GetKeyPolicy", "GetPublicKey", "ListGrants"])
def test_kms_is_given_a_moment_to_know_its_new_key(code: str, operation: str) -> None:
    few = limits.READ_BACK_ATTEMPTS - 1
    kms = BentAdmin(troubles={operation: [(400, code)] * few})
    pauses: list[float] = []
    make(kms, sleep=pauses.append)
    assert kms.asked().count(operation) == few + 1
    assert len(pauses) == few
    assert pauses == sorted(pauses)
    assert 3 < sum(pauses) < 15

    kms = BentAdmin(troubles={operation: [(400, code)] * (few + 1)})
    with pytest.raises(KmsError, match=code):
        make(kms)
    assert kms.asked().count(operation) == few + 1


def test_other_refusals_are_not_waited_for() -> None:
    kms = BentAdmin(troubles={"GetKeyPolicy": [(400, "KMSInvalidStateException")] * 2})
    with pytest.raises(KmsError):
        make(kms)
    assert kms.asked().count("GetKeyPolicy") == 1

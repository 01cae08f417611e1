"""Attacks the program that APP_PROGRAM names, or program.py: pytest test_program.py"""

import base64
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kmstool.pytest_plugin import Enclave, KmsEmulator, Run, attack_names

PROGRAM = Path(__file__).with_name(os.environ.get("APP_PROGRAM", "program.py"))
PASSWORD = b"correct horse battery staple"


def run(kms: KmsEmulator, place: Enclave) -> Run:
    key = kms.make_key("alias/shop")
    ciphertext = base64.b64encode(kms.encrypt(key, PASSWORD, {"app": "shop"}))
    image = {"APP_KEY_ARN": key}
    return place.run(sys.executable, PROGRAM, input=ciphertext, env=image, timeout=30)


def test_it_works(kms_emulator: KmsEmulator, enclave: Enclave) -> None:
    assert run(kms_emulator, enclave).stdout.split(b"is ")[1].strip() == PASSWORD


@pytest.mark.parametrize("attack", attack_names("direct"))
def test_it_is_not_fooled(
    kms_emulator: KmsEmulator, hostile_parent: Callable[[str], Enclave], attack: str
) -> None:
    done = run(kms_emulator, hostile_parent(attack))
    assert done.code is not None, "it hangs"
    assert done.stdout in (b"", b"the password is " + PASSWORD + b"\n"), "it took something else"

"""One emulator for all tests of this folder, and unmodified botocore clients of it."""

from collections.abc import Iterator
from typing import Any

import pytest
from support.emulator import RunningEmulator, running_emulator
from support.recipients import OpensslRecipient


@pytest.fixture(scope="session")
def emulator() -> Iterator[RunningEmulator]:
    """A running emulator with its defaults."""
    with running_emulator() as running:
        yield running


@pytest.fixture(scope="session")
def kms(emulator: RunningEmulator) -> Any:
    """A client that acts as the administrator."""
    return emulator.admin_client()


@pytest.fixture(scope="session")
def recipient(tmp_path_factory: pytest.TempPathFactory) -> OpensslRecipient:
    """A recipient whose answers openssl opens."""
    return OpensslRecipient(tmp_path_factory.mktemp("recipient"))

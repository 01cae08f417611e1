"""The list of CIDs over a real vsock, where there is one; tests/unit/parent tests it everywhere."""

import pytest
from support.faults import Exchange, ForwardProcess, Target, Way, until
from support.forwarding import ends


def test_a_cid_on_the_list_gets_in(vsock: Way, target: Target) -> None:
    with ForwardProcess(vsock, target.address, "--allow-cid", "1") as forward:
        Exchange(vsock).result()
        forward.said("vsock CID 1 to ")


def test_another_cid_is_refused(vsock: Way, target: Target) -> None:
    with ForwardProcess(vsock, target.address, "--allow-cid", "16") as forward:
        with vsock.connect() as client:
            assert ends(client) in ("closed", "reset")
        until(lambda: forward.refused("cid-not-allowed") == 1)


def test_without_being_asked_the_suite_touches_no_vsock(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KMSTOOL_TEST_VSOCK_LOOPBACK", raising=False)
    with pytest.raises(pytest.skip.Exception, match="KMSTOOL_TEST_VSOCK_LOOPBACK is not 1"):
        request.getfixturevalue("vsock")

"""What options and environment become: region, host, addresses, roots, module, credentials."""

import ssl
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.bent_kms import IMAGE, KEY_ARN
from support.loopback import serving

from kmstool import session
from kmstool.arn import ANY_KEY, parse_key_arn
from kmstool.caveats import CUSTOM_NITRO_ROOT, CUSTOM_ROOTS, SIMULATED_NSM, Tolerance
from kmstool.emulator.nsm import SimulatedNsm
from kmstool.emulator.nsm_server import NsmServer
from kmstool.emulator.signer import SigningChain
from kmstool.enclave.relayed import RELAY_HINT
from kmstool.errors import CaveatRefused, KmstoolError, NsmError, SettingError, TransportError
from kmstool.roots import amazon_roots_pem, nitro_root_der
from kmstool.session import (
    SessionOptions,
    attestation_root,
    is_relayed,
    open_admin,
    open_direct,
    open_nsm,
    open_relayed,
)

KEY = parse_key_arn(KEY_ARN)


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment that names a directory as the emulator writes it, without a KMS behind it."""
    module = SimulatedNsm(IMAGE, SigningChain.generate())
    (tmp_path / "emulator.json").write_text(
        '{"version": 1, "nsm": "nsm.sock", "ca": "ca.pem", "kms": "tcp://127.0.0.1:1"}'
    )
    (tmp_path / "ca.pem").write_text(amazon_roots_pem())
    with NsmServer(module.handle, tmp_path / "nsm.sock"):
        yield {"KMSTOOL_EMULATOR": str(tmp_path)}


# --- The module ---------------------------------------------------------------------------------


def test_without_the_emulator_the_module_is_the_device() -> None:
    with pytest.raises(NsmError, match="/dev/nsm"):
        open_nsm({})


def test_the_emulator_s_module_always_brings_its_caveat(emulator: dict[str, str]) -> None:
    nsm, caveats = open_nsm(emulator)
    with nsm:
        assert caveats == (SIMULATED_NSM,)
        assert nsm.describe_pcr(0).data == IMAGE[0]


def test_the_emulator_is_refused_beside_a_real_module(
    emulator: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path / "nsm"
    device.touch()
    monkeypatch.setattr(session, "DEV_NSM", str(device))
    with pytest.raises(SettingError, match="real /dev/nsm"):
        open_nsm(emulator)
    with pytest.raises(SettingError, match="real /dev/nsm"):
        open_direct(SessionOptions(), key=KEY, environ=emulator)


def test_the_emulator_is_refused_where_its_transport_is_not_installed(
    emulator: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kmstool.emulator.nsm_transport", None)
    with pytest.raises(SettingError, match="no emulator"):
        open_nsm(emulator)


@pytest.mark.parametrize("directory", ["", "/nonexistent"])
def test_a_directory_that_is_not_the_emulator_s_is_refused(directory: str) -> None:
    with pytest.raises(SettingError):
        open_nsm({"KMSTOOL_EMULATOR": directory})


# --- The client ---------------------------------------------------------------------------------


def test_strict_refuses_the_emulator_before_anything_else(emulator: dict[str, str]) -> None:
    options = SessionOptions(tolerance=Tolerance(strict=True))
    with pytest.raises(CaveatRefused, match="simulated-nsm"):
        open_direct(options, key=KEY, environ=emulator)
    options = SessionOptions(tolerance=Tolerance(strict=True, allowed=frozenset({"simulated-nsm"})))
    with pytest.raises(CaveatRefused, match="custom-roots"):
        open_direct(options, key=KEY, environ=emulator)


def test_the_region_of_the_key_is_not_contradicted(emulator: dict[str, str]) -> None:
    with pytest.raises(SettingError, match="'us-east-1' is not that of the key, 'eu-west-1'"):
        open_direct(SessionOptions(region="us-east-1"), key=KEY, environ=emulator)
    open_direct(SessionOptions(region="eu-west-1"), key=KEY, environ=emulator).close()
    # A variable is a default, so the ARN wins over it silently.
    open_direct(
        SessionOptions(), key=KEY, environ=emulator | {"KMSTOOL_REGION": "us-east-1"}
    ).close()


def test_without_a_key_the_region_must_be_known(emulator: dict[str, str]) -> None:
    with pytest.raises(SettingError, match="region is not known"):
        open_direct(SessionOptions(), key=ANY_KEY, environ=emulator)
    with pytest.raises(SettingError, match="unknown region"):
        open_direct(SessionOptions(region="moon-base-1"), key=ANY_KEY, environ=emulator)
    open_direct(SessionOptions(region="eu-west-1"), key=None, environ=emulator).close()
    open_direct(
        SessionOptions(), key=None, environ=emulator | {"KMSTOOL_REGION": "eu-west-1"}
    ).close()


@pytest.mark.parametrize("via", ["direct=", "Direct", "", "vsock://3:8000"])
def test_a_way_that_does_not_exist_is_refused(via: str, emulator: dict[str, str]) -> None:
    with pytest.raises(SettingError, match="no way to KMS"):
        open_direct(SessionOptions(via=(via,)), key=KEY, environ=emulator)


@pytest.mark.parametrize("address", ["3:8000", "vsock://3", "http://x:1", "unix:"])
def test_an_address_that_is_none_is_refused(address: str, emulator: dict[str, str]) -> None:
    with pytest.raises(SettingError):
        open_direct(SessionOptions(via=(f"direct={address}",)), key=KEY, environ=emulator)


def test_a_roots_file_that_cannot_be_read_is_refused(
    emulator: dict[str, str], tmp_path: Path
) -> None:
    for content in (None, b"\xff"):
        path = tmp_path / "roots.pem"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SettingError, match="roots"):
            open_direct(SessionOptions(roots_file=str(path)), key=KEY, environ=emulator)


# --- Which addresses and which roots are used, seen from outside --------------------------------


def failure(options: SessionOptions, environ: dict[str, str]) -> tuple[str, list[str]]:
    lines: list[str] = []
    options = SessionOptions(
        via=options.via,
        credentials="env",
        host=options.host,
        fips=options.fips,
        timeout=1,
        trace=lines.append,
    )
    environ = environ | {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"}
    with (
        open_direct(options, key=KEY, environ=environ) as kms,
        pytest.raises(KmstoolError) as error,
    ):
        kms.decrypt(b"c", key=KEY)
    return str(error.value), lines


def test_the_emulator_s_address_is_the_default_and_an_option_wins(
    emulator: dict[str, str],
) -> None:
    message, _ = failure(SessionOptions(), emulator)
    assert "tcp://127.0.0.1:1" in message
    message, _ = failure(SessionOptions(via=("direct=unix:/nonexistent/typed",)), emulator)
    assert "/nonexistent/typed" in message


def test_addresses_are_tried_in_order_and_the_last_one_s_error_is_told(
    emulator: dict[str, str],
) -> None:
    message, lines = failure(
        SessionOptions(via=("direct=unix:/nonexistent/1", "direct=unix:/nonexistent/2")), emulator
    )
    assert "/nonexistent/2" in message
    tried = [line for line in lines if line.startswith("connecting to")]
    assert tried == ["connecting to unix:/nonexistent/1", "connecting to unix:/nonexistent/2"]


@pytest.mark.parametrize(
    ("options", "host"),
    [
        (SessionOptions(), "kms.eu-west-1.amazonaws.com"),
        (SessionOptions(fips=True), "kms-fips.eu-west-1.amazonaws.com"),
        (SessionOptions(host="vpce-1.kms.example"), "vpce-1.kms.example"),
    ],
)
def test_the_name_in_the_certificate(
    options: SessionOptions, host: str, emulator: dict[str, str]
) -> None:
    with serving(lambda connection: connection.sendall(b"no TLS here\n")) as port:
        options = replace(options, via=(f"direct=tcp://127.0.0.1:{port}",))
        message, _ = failure(options, emulator)
    assert message == f"the server that answers for {host} does not speak TLS"


def test_a_device_is_used_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside the emulator: Amazon's roots, no caveat, and the variable's address."""
    monkeypatch.setattr(session, "open_nsm", lambda _environ: (object(), ()))
    environ = {"KMSTOOL_DIRECT": "unix:/nonexistent/variable"}
    message, _ = failure(SessionOptions(), environ)
    assert "/nonexistent/variable" in message
    assert session.DEFAULT_DIRECT == "vsock://3:8000"


def test_custom_roots_always_bring_their_caveat(tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_text(amazon_roots_pem())
    pem, caveats = session._roots(SessionOptions(roots_file=str(roots)), None)
    assert (pem, caveats) == (amazon_roots_pem(), (CUSTOM_ROOTS,))
    assert session._roots(SessionOptions(), None) == (amazon_roots_pem(), ())


# --- Over a relay -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("via", "relayed"),
    [((), False), (("direct",), False), (("relay",), True), (("relay=unix:/x", "relay"), True)],
)
def test_a_relay_is_where_it_is_named(via: tuple[str, ...], relayed: bool) -> None:
    assert is_relayed(SessionOptions(via=via)) is relayed


@pytest.mark.parametrize("via", [("relay", "direct"), ("direct=unix:/x", "relay=unix:/x")])
def test_the_two_setups_are_not_mixed(via: tuple[str, ...], emulator: dict[str, str]) -> None:
    with pytest.raises(SettingError, match="a relay and another way"):
        is_relayed(SessionOptions(via=via))
    with pytest.raises(SettingError):
        open_relayed(SessionOptions(via=via), key=KEY, environ=emulator)
    with pytest.raises(SettingError):
        open_direct(SessionOptions(via=via), key=KEY, environ=emulator)


def test_a_direct_client_does_not_go_over_a_relay(emulator: dict[str, str]) -> None:
    for via in ("relay", "relay=unix:/x"):
        with pytest.raises(SettingError, match="does not exist over a relay") as caught:
            open_direct(SessionOptions(via=(via,)), key=None, environ=emulator)
        assert "--via direct" in str(caught.value.hint)
        with pytest.raises(SettingError, match="does not exist over a relay"):
            open_admin(SessionOptions(via=(via,)), environ=emulator)


def test_a_relay_s_address_is_named_or_of_the_variable_or_of_the_parent(
    emulator: dict[str, str],
) -> None:
    def tried(via: tuple[str, ...], environ: dict[str, str]) -> list[str]:
        lines: list[str] = []
        options = SessionOptions(via=via, trace=lines.append, timeout=2)
        with (
            open_relayed(options, key=KEY, environ=emulator | environ) as kms,
            pytest.raises((TransportError, AssertionError)) as caught,
        ):
            kms.decrypt(b"c", key=KEY, key_length=32)
        assert "kmstool parent relay" in str(getattr(caught.value, "hint", RELAY_HINT))
        return [line for line in lines if line.startswith("connecting")]

    assert tried(("relay=unix:/nowhere/a", "relay=unix:/nowhere/b"), {}) == [
        "connecting to unix:/nowhere/a",
        "connecting to unix:/nowhere/b",
    ]
    variable = {"KMSTOOL_RELAY": "unix:/nowhere/c", "KMSTOOL_DIRECT": "unix:/nowhere/d"}
    assert tried(("relay",), variable) == ["connecting to unix:/nowhere/c"]
    assert tried((), variable) == ["connecting to unix:/nowhere/c"]
    assert tried(("relay",), {}) == ["connecting to vsock://3:8001"]


@pytest.mark.parametrize("via", ["relay=", "Relay", "direct", ""])
def test_a_way_over_no_relay_is_refused(via: str, emulator: dict[str, str]) -> None:
    with pytest.raises(SettingError, match="no way to KMS"):
        open_relayed(SessionOptions(via=(via,)), key=KEY, environ=emulator)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("--credentials", {"credentials": "env"}),
        ("--host", {"host": "kms.example"}),
        ("--fips", {"fips": True}),
        ("--roots", {"roots_file": "x"}),
    ],
)
def test_what_only_tls_has_means_nothing_over_a_relay(
    name: str, options: dict[str, Any], emulator: dict[str, str]
) -> None:
    with pytest.raises(SettingError, match=f"{name} means nothing over a relay"):
        open_relayed(SessionOptions(via=("relay",), **options), key=KEY, environ=emulator)


def test_over_a_relay_the_key_has_to_be_an_arn(emulator: dict[str, str]) -> None:
    nobody: Any
    for nobody in (ANY_KEY, None, KEY_ARN):
        with pytest.raises(SettingError, match="the key has to be named"):
            open_relayed(SessionOptions(), key=nobody, environ=emulator)
    with pytest.raises(SettingError, match="is not that of the key"):
        open_relayed(SessionOptions(region="us-east-1"), key=KEY, environ=emulator)


def test_caveats_over_a_relay(emulator: dict[str, str]) -> None:
    allowed = Tolerance(strict=True, allowed=frozenset({"simulated-nsm"}))
    with pytest.raises(CaveatRefused, match="relayed-answer"):
        open_relayed(SessionOptions(tolerance=allowed), key=KEY, environ=emulator)
    allowed = Tolerance(strict=True, allowed=frozenset({"relayed-answer"}))
    with pytest.raises(CaveatRefused, match="simulated-nsm"):
        open_relayed(SessionOptions(tolerance=allowed), key=KEY, environ=emulator)


# --- Keys made inside, and documents verified ---------------------------------------------------


def test_open_admin_goes_where_open_direct_goes(emulator: dict[str, str]) -> None:
    options = SessionOptions(region="eu-west-1", nonce=b"n", user_data=b"u")
    nsm, admin, caveats = open_admin(options, environ=emulator)
    with nsm, admin:
        assert caveats == (SIMULATED_NSM, CUSTOM_ROOTS)
        assert (admin.host, admin.region) == ("kms.eu-west-1.amazonaws.com", "eu-west-1")
        assert nsm.describe_pcr(0).data == IMAGE[0]
    options = SessionOptions(region="us-east-1", fips=True)
    assert open_admin(options, environ=emulator)[1].host == "kms-fips.us-east-1.amazonaws.com"
    options = SessionOptions(region="us-east-1", host="KMS.example.com")
    assert open_admin(options, environ=emulator)[1].host == "kms.example.com"
    with pytest.raises(SettingError, match="the region is not known"):
        open_admin(SessionOptions(), environ=emulator)


@pytest.mark.parametrize("allowed", [(), ("simulated-nsm",), ("custom-roots",)])
def test_open_admin_asks_the_tolerance(emulator: dict[str, str], allowed: tuple[str, ...]) -> None:
    tolerance = Tolerance(strict=True, allowed=frozenset(allowed))
    options = SessionOptions(region="eu-west-1", tolerance=tolerance)
    with pytest.raises(CaveatRefused):
        open_admin(options, environ=emulator)


def test_the_root_of_attestation(emulator: dict[str, str], tmp_path: Path) -> None:
    assert attestation_root({}) == (nitro_root_der(), ())
    with pytest.raises(SettingError, match="names no root of attestation"):
        attestation_root(emulator)
    (tmp_path / "emulator.json").write_text(
        '{"version": 1, "nsm": "nsm.sock", "ca": "ca.pem", "kms": "tcp://127.0.0.1:1",'
        ' "nitro_root": "nitro/ca0.der"}'
    )
    with pytest.raises(SettingError, match="could not be read: No such file"):
        attestation_root(emulator)
    (tmp_path / "nitro").mkdir()
    (tmp_path / "nitro" / "ca0.der").write_bytes(b"root")
    assert attestation_root(emulator) == (b"root", (SIMULATED_NSM,))


def test_a_given_root_of_attestation(emulator: dict[str, str], tmp_path: Path) -> None:
    root = SigningChain.generate().root_der
    path = tmp_path / "root"
    for data in (root, ssl.DER_cert_to_PEM_cert(root).encode()):
        path.write_bytes(data)
        for environ in ({}, emulator):  # typed, so it goes before what a variable says
            assert attestation_root(environ, root_file=str(path)) == (root, (CUSTOM_NITRO_ROOT,))
    for data in (b"", b"no certificate", root + b"\0", root + bytes(4096)):
        path.write_bytes(data)
        with pytest.raises(SettingError, match="is not the certificate of a root of attestation"):
            attestation_root({}, root_file=str(path))
    path.unlink()
    with pytest.raises(SettingError, match="could not be read: No such file"):
        attestation_root({}, root_file=str(path))

"""The allow list of AWS' vsock-proxy: what it permits, and what is not one."""

import sys

import pytest

from kmstool import limits
from kmstool.errors import InputError, SettingError
from kmstool.parent.allowlist import parse_allowlist
from kmstool.parent.mistakes import MistakesError
from kmstool.parent.settings import Target

# As aws-nitro-enclaves-cli installs it, shortened.
AS_INSTALLED = b"""allowlist:
- {address: kms.us-east-2.amazonaws.com, port: 443}
- {address: kms-fips.us-east-2.amazonaws.com, port: 443}
"""


def test_the_file_that_aws_installs() -> None:
    assert parse_allowlist(AS_INSTALLED) == {
        Target("kms.us-east-2.amazonaws.com", 443),
        Target("kms-fips.us-east-2.amazonaws.com", 443),
    }


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("allowlist:\n  - address: 127.0.0.1\n    port: 80\n", "127.0.0.1", 80),
        ('allowlist: [{address: "::1", port: 80}]', "::1", 80),
        ('{"allowlist": [{"address": "A.example.", "port": 80}]}', "a.example", 80),
        # What vsock-proxy passes over.
        ("version: 1\nallowlist:\n- {address: a, port: 80, note: [x]}", "a", 80),
        ("# comment\n---\nallowlist:\n- &first {address: a, port: 80}\n...\n", "a", 80),
    ],
)
def test_other_ways_to_write_it(text: str, host: str, port: int) -> None:
    assert parse_allowlist(text.encode()) == {Target(host, port)}


def test_an_empty_list_permits_nothing() -> None:
    assert parse_allowlist(b"allowlist: []") == frozenset()


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        ("", "not a mapping", "allowlist:"),
        ("- a", "not a mapping", "allowlist:"),
        ("other: 3", "has no `allowlist`", "allowlist:"),
        ("whitelist: []", "has no `allowlist`", "rename it"),
        ("allowlist:", "not a list", "allowlist:"),
        ("allowlist: {address: a, port: 443}", "not a list", "allowlist:"),
        ("allowlist: []\nallowlist: []", "line 2: 'allowlist' stands twice", ""),
        ("allowlist: [", "line 1: the allow list is not YAML", "allowlist:"),
        ("allowlist: []\n---\nallowlist: []", "not YAML", ""),
        ("a: \t\t!<\x00>", "not YAML", ""),
        ('a: "\\UFFFFFFFF"', "not YAML", ""),
        ("allowlist: [[[[[]]]]]", "nested too deeply", ""),
        ("[" * 60_000, "nested too deeply", ""),
        ("? " * 30_000, "nested too deeply", ""),
        ("a: &a [x]\nallowlist: *a", r"line 2: the allow list has an alias \(\*a\)", "write"),
        ("a: &a {}\nallowlist: [{<<: *a}]", "has an alias", "write"),
        ("allowlist: &a [*a]", "has an alias", "write"),
        ("#" * (limits.PARENT_ALLOWLIST_MAX + 1), "more than 65536", ""),
        ("allowlist: [" + "a," * 1_025 + "]", "1025 entries, more than 1024", ""),
    ],
)
def test_not_such_a_file(text: str, problem: str, hint: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        parse_allowlist(text.encode())
    assert not isinstance(caught.value, MistakesError)
    assert hint in (caught.value.hint or "")


def test_not_utf_8() -> None:
    with pytest.raises(InputError, match="not UTF-8"):
        parse_allowlist(b"allowlist: [\xff]")


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("a", "not a mapping"),
        ("{address: a}", "has no port"),
        ("{port: 443}", "has no address"),
        ("{address: a, prot: 443}", "has no port"),
        ("{address: a, port: 65979}", "from 1 to 65535"),  # 443 in 16 bits: theirs lets it through
        ("{address: a, port: 0}", "is not a number"),
        ("{address: a, port: -443}", "is not a number"),
        ("{address: a, port: 0443}", "is not a number"),
        ("{address: a, port: 0x1bb}", "is not a number"),
        ("{address: a, port: 4:43}", "is not a number"),
        ("{address: a, port: 4_43}", "is not a number"),
        ("{address: a, port: '443'}", "is not a number"),
        ("{address: a, port: 443.0}", "is not a number"),
        ("{address: a, port: [443]}", "is not a number: it"),
        ("{address: a, port:}", "is not a number"),
        ("{address: 3, port: 443}", "address is not a string"),
        ("{address: [a], port: 443}", "address is not a string"),
        ("{address: 'a b', port: 443}", "not a name or an address"),
        ("{address: '*', port: 443}", "not a name or an address"),
        ("{address: a, port: 443, port: 80}", "stands twice"),
    ],
)
def test_wrong_entries_are_told_by_their_line(entry: str, problem: str) -> None:
    text = f"allowlist:\n- {{address: good, port: 443}}\n- {entry}\n- {{address: 3}}\n"
    with pytest.raises(MistakesError) as caught:
        parse_allowlist(text.encode())
    first, second = caught.value.mistakes
    assert (first.place, second.place) == ("line 3", "line 4")
    assert problem in first.problem


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system [x]", "!!binary eA==", "!x y"])
def test_no_tag_makes_an_object(tag: str) -> None:
    with pytest.raises(MistakesError, match="not a string"):
        parse_allowlist(f"allowlist: [{{address: {tag}, port: 443}}]".encode())


def test_without_pyyaml_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(SettingError, match="needs PyYAML") as caught:
        parse_allowlist(AS_INSTALLED)
    assert caught.value.hint == "pip install 'kmstool[parent]'"


def test_a_list_may_permit_what_nobody_can_forward_to() -> None:
    """The list is somebody else's; only a route is refused."""
    (found,) = parse_allowlist(b"allowlist: [{address: 169.254.169.254, port: 80}]")
    assert found == Target("169.254.169.254", 80)

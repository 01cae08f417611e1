"""`kmstool-parent.toml`: what is right is read, and each mistake is told with its place."""

from collections.abc import Callable

import pytest

from kmstool import limits
from kmstool.arn import parse_key_arn
from kmstool.endpoint import parse_address
from kmstool.errors import LocalFileError, SettingError
from kmstool.parent.configuration import (
    Configuration,
    CredentialsSettings,
    ForwardLimits,
    RelaySettings,
    Route,
    Target,
    describe,
    parse_configuration,
    parse_target,
    read_configuration,
)
from kmstool.parent.mistakes import MistakesError

KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ROLE = "arn:aws:iam::111122223333:role/enclave"
FORWARD = '[[forward]]\nlisten = "vsock://:8000"\nto = "kms.eu-west-1.amazonaws.com:443"\n'
WHOLE = f"""
allowed_cids = [16, 17]
allowlist = "vsock-proxy.yaml"
metrics = "tcp://127.0.0.1:9100"

[limits]
connections = 100
idle_seconds = 60
drain_seconds = 0

{FORWARD}
[[forward]]
listen = "unix:/run/second.sock"
to = "[::1]:443"

[credentials]
listen = "vsock://:8002"
assume_role = "{ROLE}"
only_kms = ["{KEY}"]
duration_seconds = 900

[relay]
listen = "vsock://:8001"
allow_keys = ["{KEY}"]
endpoint_url = "https://kms.eu-west-1.amazonaws.com"
"""
ALLOWLIST = """
allowlist:
- {address: kms.eu-west-1.amazonaws.com, port: 443}
- {address: "::1", port: 443}
"""


def files(**found: str) -> Callable[[str], bytes]:
    def read(name: str) -> bytes:
        if name not in found:
            raise LocalFileError(f"cannot read {name}: no such file or directory")
        return found[name].encode()

    return read


READ = files(**{"vsock-proxy.yaml": ALLOWLIST, "policy.json": "{}"})


def mistakes_in(text: str | bytes) -> list[tuple[str, str, str]]:
    """Place, problem and mend of each."""
    data = text.encode() if isinstance(text, str) else text
    found = read_configuration(data, read_file=READ).mistakes
    if found:
        with pytest.raises(MistakesError) as caught:
            parse_configuration(data, read_file=READ)
        assert caught.value.mistakes == found
        assert str(found[0]) in str(caught.value)
    return [(mistake.place, mistake.problem, mistake.mend or "") for mistake in found]


def test_all_of_it() -> None:
    key = parse_key_arn(KEY)
    assert parse_configuration(WHOLE.encode(), read_file=READ) == Configuration(
        routes=(
            Route(
                parse_address("vsock://:8000", listening=True),
                Target("kms.eu-west-1.amazonaws.com", 443),
            ),
            Route(parse_address("unix:/run/second.sock"), Target("::1", 443)),
        ),
        limits=ForwardLimits(
            connections=100, connections_per_cid=100, idle_seconds=60.0, drain_seconds=0.0
        ),
        allowed_cids=frozenset({16, 17}),
        credentials=CredentialsSettings(
            listen=parse_address("vsock://:8002", listening=True),
            assume_role=ROLE,
            only_kms=(key,),
            duration_seconds=900,
        ),
        relay=RelaySettings(
            listen=parse_address("vsock://:8001", listening=True),
            allow_keys=(key,),
            endpoint_url="https://kms.eu-west-1.amazonaws.com",
        ),
        metrics=parse_address("tcp://127.0.0.1:9100"),
    )


def test_defaults() -> None:
    found = parse_configuration(FORWARD.encode(), read_file=READ)
    assert found.limits == ForwardLimits()
    assert found.limits.connections == limits.FORWARD_CONNECTIONS
    assert found.limits.connections_per_cid == limits.FORWARD_CONNECTIONS_PER_CID
    assert (found.allowed_cids, found.credentials, found.relay, found.metrics) == (
        frozenset(),
        None,
        None,
        None,
    )


def test_a_session_policy_is_read_from_its_file_and_sent_without_white_space() -> None:
    statement = '{"Statement": [ {"Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*"} ]}'
    text = f'[credentials]\nlisten = "unix:c"\nassume_role = "{ROLE}"\nsession_policy = "p.json"'
    found = parse_configuration(text.encode(), read_file=files(**{"p.json": statement}))
    assert found.credentials is not None
    assert found.credentials.session_policy == statement.replace(" ", "")


def test_describe() -> None:
    lines = describe(parse_configuration(WHOLE.encode(), read_file=READ))
    assert lines == [
        "forward: vsock://:8000 to kms.eu-west-1.amazonaws.com:443",
        "forward: unix:/run/second.sock to [::1]:443",
        f"credentials: vsock://:8002, those of {ROLE}, for one KMS key alone",
        "relay: vsock://:8001, for one KMS key",
        "metrics: tcp://127.0.0.1:9100",
        "allowed CIDs: 16, 17",
    ]


RELAY = f'[relay]\nlisten = "vsock://:8001"\nallow_keys = ["{KEY}"]\n'
CREDENTIALS = '[credentials]\nlisten = "vsock://:8002"\n'


@pytest.mark.parametrize(
    ("text", "place", "problem", "mend"),
    [
        ("", "the file", "starts nothing", "[[forward]]"),
        ("a = [", "the file", "not TOML", "toml.io"),
        ("a = " + "[" * 5_000, "the file", "not TOML", "toml.io"),
        ("a = " + "9" * 5_000, "the file", "not TOML", "toml.io"),
        (b"\xff", "the file", "not UTF-8", ""),
        ("#" * (limits.PARENT_FILE_MAX + 1), "the file", "more than 65536", ""),
        ("allowed_cid = 3\n" + FORWARD, "allowed_cid", "no such setting", "mean allowed_cids"),
        ("zzz = 3\n" + FORWARD, "zzz", "no such setting", "known here: forward, credentials"),
        ('"a\\u001b" = 3\n' + FORWARD, "'a\\x1b'", "no such setting", ""),
        ("allowed_cids = 16\n" + FORWARD, "allowed_cids", "a number stands where a list", "brack"),
        ("allowed_cids = [true]\n" + FORWARD, "allowed_cids, item 1", "true or false stands", ""),
        ("allowed_cids = []\n" + FORWARD, "allowed_cids", "it is empty", "let every enclave in"),
        ("allowed_cids = [-1]\n" + FORWARD, "allowed_cids, item 1", "-1 is not between 0", ""),
        (f"allowed_cids = [{2**32 - 1}]\n" + FORWARD, "allowed_cids, item 1", "not between", ""),
        (f"allowed_cids = {[9] * 1_025}\n" + FORWARD, "allowed_cids", "more than 1024", ""),
        ('allowlist = "gone"\n' + FORWARD, "allowlist", "cannot read gone", ""),
        ('allowlist = ""\n' + FORWARD, "allowlist", "it is empty", ""),
        ("metrics = 9100\n" + FORWARD, "metrics", "a number stands where a string", "quotes"),
        ('metrics = "tcp://0.0.0.0:1"\n' + FORWARD, "metrics", "the network could", "127.0.0.1"),
        ('metrics = "tcp://10.0.0.1:1"\n' + FORWARD, "metrics", "the network could", "127.0.0.1"),
        ('metrics = "tcp://some.name:1"\n' + FORWARD, "metrics", "the network could", "127.0.0.1"),
        ('metrics = "vsock://:9100"\n' + FORWARD, "metrics", "not for enclaves", "unix:PATH"),
        ('metrics = "unix:m"\n' + RELAY, "metrics", "only the forwarder has", "leave it out"),
        ('forward = "x"', "forward", "the string 'x' stands where a list", ""),
        ('[forward]\nlisten = "unix:a"', "forward", "one table", "[[forward]]"),
        ("forward = [3]", "forward", "a number stands where a table", ""),
        ('[[forward]]\nto = "a:1"', "[[forward]] 1, listen", "missing", 'listen = "vsock://:8000"'),
        ('[[forward]]\nlisten = "unix:a"', "[[forward]] 1, to", "missing", "to = "),
        (FORWARD.replace(":443", ""), "[[forward]] 1, to", "the port is missing", "looks like"),
        (FORWARD.replace(":443", ":65979"), "[[forward]] 1, to", "from 1 to 65535", "looks like"),
        (FORWARD.replace("vsock://:", ""), "[[forward]] 1, listen", "is not an address", "vsock"),
        (FORWARD + "port = 3", "[[forward]] 1, port", "no such setting", "known here: listen, to"),
        ("[limits]\nconnections = 0\n" + FORWARD, "[limits], connections", "0 is not between", ""),
        ("[limits]\nconnections = 9e3\n" + FORWARD, "[limits], connections", "whole number", ""),
        ("[limits]\nconnection = 9\n" + FORWARD, "[limits], connection", "no such", "connections"),
        (
            "[limits]\nconnections_per_cid = 600\n" + FORWARD,
            "[limits], connections_per_cid",
            "600 are more than the 512",
            "raise connections",
        ),
        ("[limits]\nidle_seconds = 0\n" + FORWARD, "[limits], idle_seconds", "above 0 to", ""),
        ("[limits]\nidle_seconds = nan\n" + FORWARD, "[limits], idle_seconds", "above 0 to", ""),
        ("[limits]\nidle_seconds = inf\n" + FORWARD, "[limits], idle_seconds", "above 0 to", ""),
        ("[limits]\ndrain_seconds = -1\n" + FORWARD, "[limits], drain_seconds", "from 0 to", ""),
        (f"[limits]\nidle_seconds = {'9' * 400}\n" + FORWARD, "[limits], idle_seconds", "0 to", ""),
        ('[limits]\nidle_seconds = "5m"\n' + FORWARD, "[limits], idle_seconds", "'5m'", "unit"),
        ("[limits]\nidle_seconds = 1979-05-27\n" + FORWARD, "[limits], idle_seconds", "a date", ""),
        ("limits = 3\n" + FORWARD, "limits", "a number stands where a table", ""),
        ("credentials = 3", "credentials", "a number stands where a table", ""),
        ("[credentials]", "[credentials], listen", "missing", "vsock://:8002"),
        (
            '[credentials]\nlisten = "tcp://0.0.0.0:1"',
            "[credentials], listen",
            "the network could take them",
            "vsock://:8002",
        ),
        (
            CREDENTIALS + f'only_kms = ["{KEY}"]',
            "[credentials], only_kms",
            "no role is assumed",
            "add assume_role",
        ),
        (
            CREDENTIALS + "duration_seconds = 900",
            "[credentials], duration_seconds",
            "no role is assumed",
            "add assume_role",
        ),
        (CREDENTIALS + 'assume_role = "r"', "[credentials], assume_role", "not the ARN of a", ""),
        (
            CREDENTIALS + f'assume_role = "{ROLE}"\nduration_seconds = 899',
            "[credentials], duration_seconds",
            "899 is not between 900",
            "",
        ),
        (
            CREDENTIALS + f'assume_role = "{ROLE}"\nsession_policy = "policy.json"',
            "[credentials], session_policy",
            "no statement",
            "Statement",
        ),
        (
            CREDENTIALS + f'assume_role = "{ROLE}"\nonly_kms = ["alias/x"]',
            "[credentials], only_kms, item 1",
            "is an alias",
            "ARN",
        ),
        (
            CREDENTIALS + f'assume_role = "{ROLE}"\nonly_kms = []',
            "[credentials], only_kms",
            "it is empty",
            "all that the role may",
        ),
        (
            RELAY.replace("vsock://:8001", "tcp://10.0.0.1:1"),
            "[relay], listen",
            "the network could use its credentials",
            "vsock://:8001",
        ),
        ("[relay]\nlisten = 'unix:r'", "[relay], allow_keys", "missing", "allow_keys = ["),
        ("[relay]\nlisten = 'unix:r'\nallow_keys = []", "[relay], allow_keys", "empty", "write"),
        (RELAY + "endpoint_url = 'kms'", "[relay], endpoint_url", "not a URL", "https://"),
        (RELAY + "endpoint_url = 'ftp://a'", "[relay], endpoint_url", "not a URL", "https://"),
        (RELAY + "endpoint_url = 'http://a:b'", "[relay], endpoint_url", "not a URL", "https://"),
        (RELAY + "endpoint_url = 'https://a b'", "[relay], endpoint_url", "not a URL", "https://"),
        (
            FORWARD + FORWARD,
            "[[forward]] 2",
            "vsock://:8000 cannot be listened on beside vsock://:8000 of [[forward]] 1",
            "its own port",
        ),
        (
            FORWARD + RELAY.replace("vsock://:8001", "vsock://3:8000"),
            "[relay]",
            "cannot be listened on beside vsock://:8000 of [[forward]] 1",
            "its own port",
        ),
        (
            'allowlist = "vsock-proxy.yaml"\n' + FORWARD.replace("eu-west-1", "eu-west-2"),
            "[[forward]] 1, to",
            "kms.eu-west-2.amazonaws.com:443 is not on the allow list",
            "did you mean kms.eu-west-1.amazonaws.com:443?",
        ),
        (
            'allowlist = "vsock-proxy.yaml"\n' + FORWARD.replace("kms.eu-west-1", "s3"),
            "[[forward]] 1, to",
            "s3.amazonaws.com:443 is not on the allow list",
            "- {address: s3.amazonaws.com, port: 443}",
        ),
        (
            "allowed_cids = [16]\n"
            + FORWARD.replace("vsock://:8000", "tcp://127.0.0.1:8000")
            + RELAY,
            "[[forward]] 1",
            "has no CIDs",
            "vsock://",
        ),
        (
            "allowed_cids = [16]\n" + FORWARD.replace("vsock://:8000", "unix:a"),
            "allowed_cids",
            "nothing listens on a vsock",
            "leave it out",
        ),
        ("[[forward]]\n" * 65, "[[forward]]", "there are 65, more than 64", ""),
    ],
)
def test_a_mistake(text: str | bytes, place: str, problem: str, mend: str) -> None:
    (found,) = mistakes_in(text)
    assert found[0] == place
    assert problem in found[1]
    assert mend in found[2]


def test_too_many_keys_for_a_session_policy() -> None:
    keys = [KEY[:-2] + f"{number:02}" for number in range(60)]
    text = CREDENTIALS + f'assume_role = "{ROLE}"\nonly_kms = {keys}'
    ((place, problem, _),) = mistakes_in(text)
    assert place == "[credentials], only_kms"
    assert "AWS takes 2048" in problem


def test_a_policy_beside_a_list_of_keys() -> None:
    text = CREDENTIALS + f'assume_role = "{ROLE}"\nonly_kms = ["{KEY}"]\nsession_policy = "p"'
    policy = '{"Statement": {"Effect": "Allow"}}'
    found = read_configuration(text.encode(), read_file=files(p=policy)).mistakes
    assert [str(mistake) for mistake in found] == [
        "[credentials], only_kms: there is a session_policy as well"
    ]


def test_every_mistake_is_told_and_what_is_right_is_known() -> None:
    text = "connections = 3\n" + FORWARD.replace(":443", ":0") + FORWARD + "[credentials]\n" + RELAY
    reading = read_configuration(text.encode(), read_file=READ)
    assert [mistake.place for mistake in reading.mistakes] == [
        "connections",
        "[[forward]] 1, to",
        "[credentials], listen",
    ]
    assert describe(reading.configuration) == [
        "forward: vsock://:8000 to kms.eu-west-1.amazonaws.com:443",
        "relay: vsock://:8001, for one KMS key",
    ]


def test_places_count_as_the_file_does() -> None:
    text = 'allowlist = "vsock-proxy.yaml"\n[[forward]]\nlisten = "unix:a"\nto = ":0"\n'
    found = mistakes_in(text + FORWARD.replace("kms", "s3"))
    assert [place for place, _, _ in found] == ["[[forward]] 1, to", "[[forward]] 2, to"]


def test_the_list_of_mistakes_ends() -> None:
    text = "\n".join(f"unknown{number} = 1" for number in range(1_000))
    assert len(mistakes_in(text)) == limits.PARENT_MISTAKES_MAX


def test_mistakes_in_the_allow_list_have_its_lines() -> None:
    read = files(y="allowlist:\n- {address: a, port: 443}\n- {address: a, port: 65979}\n")
    text = 'allowlist = "y"\n' + FORWARD.replace("kms.eu-west-1.amazonaws.com", "a")
    (found,) = read_configuration(text.encode(), read_file=read).mistakes
    assert found.place == "allowlist, line 3"
    assert "65979" in found.problem


def test_a_session_policy_of_an_editor_that_writes_a_byte_order_mark() -> None:
    """As `--session-policy` takes it."""
    policy = '\ufeff{"Statement": {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}}'
    text = CREDENTIALS + f'assume_role = "{ROLE}"\nsession_policy = "p"'
    assert read_configuration(text.encode(), read_file=files(p=policy)).mistakes == ()


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("kms.eu-west-1.amazonaws.com:443", "kms.eu-west-1.amazonaws.com", 443),
        ("KMS.EU-WEST-1.amazonaws.com.:443", "kms.eu-west-1.amazonaws.com", 443),
        ("127.0.0.1:5000", "127.0.0.1", 5000),
        ("[::1]:1", "::1", 1),
        ("[0:0:0:0:0:0:0:1]:65535", "::1", 65535),
        ("localhost:08", "localhost", 8),
        ("my_host:8", "my_host", 8),
    ],
)
def test_targets(text: str, host: str, port: int) -> None:
    assert parse_target(text) == Target(host, port)
    assert parse_target(str(Target(host, port))) == Target(host, port)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", ":443", "a", "a:", "a:0", "a:65536", "a:65979", "a:-1", "a:4 3", "a:٤٤٣"),
        *(
            "::1:443",
            "[::1]",
            "[::1]443",
            "[::1:443",
            "[1.2.3.4]:443",
            "[fe80::1%eth0]:443",
            "[]:1",
        ),
        *("https://a:443", "tcp://a:443", "a/b:443", "a b:443", "a..b:443", ".a:443", "é:443"),
        *("1.2.3:443", "1.2.3.4.5:443", "256.1.1.1:443", "01.2.3.4:443", "a:443:443", "a\0:443"),
        # Numbers that a resolver takes for IPv4 addresses, as inet_aton(3) does.
        *("0x7f000001:443", "0xA9FEA9FE:80", "127.0.0x1:443", "1.0X.:443"),
        *("a" * 64 + ":443", ".".join(["a" * 50] * 6) + ":443"),
    ],
)
def test_no_targets(text: str) -> None:
    with pytest.raises(SettingError, match="is not a target") as caught:
        parse_target(text)
    assert "looks like" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "text",
    [
        *("169.254.169.254:80", "169.254.170.2:80", "169.254.170.23:80"),
        *("[fd00:ec2::254]:80", "[fd00:ec2:0:0:0:0:0:23]:80", "[::ffff:169.254.169.254]:80"),
    ],
)
def test_the_metadata_service_is_no_target(text: str) -> None:
    """Whoever reaches it has the instance's credentials, whatever `only_kms` says."""
    with pytest.raises(SettingError, match="leads to the credentials of this instance") as caught:
        parse_target(text)
    assert "parent credentials" in (caught.value.hint or "")


def test_other_addresses_of_the_link_are() -> None:
    assert parse_target("169.254.169.253:53").host == "169.254.169.253"  # the VPC's resolver

"""`kmstool doctor` as whole processes: on a terminal and piped, as docs/howto/doctor.md has it."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.emulator import RunningEmulator, running_emulator
from support.hostile_server import HostileServer
from support.processes import Finished, command, environment, run_kmstool
from support.terminals import Shown, on_a_terminal

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "howto" / "doctor.md").read_text("utf-8")
# What these find differs from machine to machine; the rest of the page does not.
OF_THE_MACHINE = {"random-source", "kernel", "clock-source", "key-exchange"}
MARKS = "✓!✗–"


def environ() -> dict[str, str]:
    programs = Path(sys.executable).parent
    found = {name: value for name, value in environment().items() if name != "NO_COLOR"}
    return found | {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONIOENCODING": "utf-8"}


def shown_in_the_page(index: int) -> tuple[str, str]:
    """A command of the page, and what it says that it prints."""
    block = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[index]
    first, _, output = str(block).partition("\n")
    return first.removeprefix("$ "), output


def compared(text: str) -> str:
    """The findings and warnings without those of the machine, whose marks are looked at apart."""
    kept, keep = [], True
    for line in text.strip().splitlines():
        if line[0] in MARKS:
            keep = line.split()[1] not in OF_THE_MACHINE
        elif line[0] != " ":
            keep = True
        if keep:
            kept.append(line)
    return "\n".join(kept)


def matches(shown: str, printed: str) -> bool:
    parts = map(re.escape, compared(shown).split("…"))
    return re.fullmatch(".*".join(parts), compared(printed), re.DOTALL) is not None


def checks_in(text: str) -> list[str]:
    return [line.split()[1] for line in text.splitlines() if line[:1] in MARKS and line.strip()]


@pytest.fixture(scope="module")
def emulator() -> Iterator[RunningEmulator]:
    with running_emulator() as running:
        yield running


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Finished]:
    """kmstool as a whole process in an empty folder."""
    return functools.partial(run_kmstool, directory=tmp_path)


@pytest.fixture(scope="module")
def on_terminal() -> Shown:
    typed, _ = shown_in_the_page(0)
    return on_a_terminal(typed.split(), environ())


def test_the_page_shows_what_stands_on_a_terminal(on_terminal: Shown) -> None:
    _, shown = shown_in_the_page(0)
    assert on_terminal.code == 0
    assert matches(shown, on_terminal.screen), on_terminal.screen
    assert checks_in(shown) == checks_in(on_terminal.screen)
    # Each check is seen while it runs, and then written over.
    assert "  forwarder …\r" in on_terminal.raw
    assert "\x1b[32m✓\x1b[0m forwarder" in on_terminal.raw


def test_the_page_shows_what_a_pipe_gets() -> None:
    typed, shown = shown_in_the_page(1)
    done = subprocess.run(
        ["bash", "-c", typed], env=environ(), capture_output=True, text=True, check=False
    )
    assert matches(shown, done.stdout), done.stdout
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout


def test_the_page_has_every_check(run: Callable[..., Finished], emulator: RunningEmulator) -> None:
    nothing = {"AWS_EC2_METADATA_DISABLED": "true"}
    for options, env in (
        (("--inside",), emulator.kmstool_environ()),
        (("--parent", "--via", "direct=unix:/nonexistent/x"), nothing),
    ):
        done = run("doctor", "--json", *options, env=env, may_print=True)
        names = [one["check"] for one in done.json["findings"]]
        assert done.json["where"] == options[0].removeprefix("--")
        table = "".join(line for line in PAGE.splitlines(keepends=True) if line[:3] == "| `")
        for name in names:
            assert f"`{name}`" in table


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_in_tmux(tmp_path: Path, emulator: RunningEmulator) -> None:
    """A terminal by another author: what is written over is gone, and no line is broken twice."""
    name = f"kmstool-{os.getpid()}"
    tmux = ["tmux", "-L", name, "-f", "/dev/null"]
    inner = f"{sys.executable} -c 'from kmstool.cli.main import run; run()' doctor; touch done; cat"
    variables = {**environ(), **emulator.kmstool_environ(), "LC_ALL": "C.UTF-8", "TERM": "xterm"}
    subprocess.run(
        [*tmux, "new-session", "-d", "-x", "100", "-y", "60", inner],
        env=variables, cwd=tmp_path, check=True,
    )  # fmt: skip
    try:
        for _ in range(600):
            if (tmp_path / "done").exists():
                break
            time.sleep(0.05)
        done = subprocess.run(
            [*tmux, "capture-pane", "-p"], env=variables, capture_output=True, text=True, check=True
        )
    finally:
        subprocess.run([*tmux, "kill-server"], env=variables, check=False)
    assert checks_in(done.stdout)[:4] == ["nsm", "nsm-random", "attestation", "pcrs"]
    assert "✓ forwarder     tcp://127.0.0.1:" in done.stdout
    assert " …\n" not in done.stdout


def test_ascii_where_the_encoding_has_no_marks(
    run: Callable[..., Finished], emulator: RunningEmulator
) -> None:
    done = run("doctor", env={**emulator.kmstool_environ(), "PYTHONIOENCODING": "latin-1"})
    assert done.code == 0
    text = done.stdout.decode("ascii")
    assert text.startswith("ok nsm           the emulator's")
    assert "\n!  random-source " in text or "\nok random-source " in text
    assert "\n-  permission    not tried: " in text


def test_a_terminal_without_colours(emulator: RunningEmulator) -> None:
    given = {**environ(), **emulator.kmstool_environ()}
    arguments = command("doctor")
    assert "\x1b[3" not in on_a_terminal(arguments, {**given, "NO_COLOR": "1"}).raw
    dumb = on_a_terminal(arguments, {**given, "TERM": "dumb"}).raw
    assert "\x1b" not in dumb.replace("\r\n", "")
    narrow = on_a_terminal(arguments, given, columns=60).screen
    long = [line for line in narrow.splitlines() if len(line) > 60]
    assert all("PCR" in line or "warning" in line or "file:" in line for line in long)


def test_json(run: Callable[..., Finished], emulator: RunningEmulator) -> None:
    done = run("doctor", "--json", env=emulator.kmstool_environ())
    report = done.json
    assert report["where"] == "inside"
    assert [one["code"] for one in report["caveats"]] == ["simulated-nsm", "custom-roots"]
    finding = report["findings"][0]
    assert set(finding) == {"check", "verdict", "text", "advice", "facts"}
    assert finding["facts"]["simulated"] is True


def test_what_is_wrong_is_exit_10_and_the_report_is_whole(
    run: Callable[..., Finished], emulator: RunningEmulator
) -> None:
    arguments = ("doctor", "--via", "direct=unix:/nonexistent/x")
    done = run(*arguments, env=emulator.kmstool_environ(), may_print=True)
    assert (done.code, done.error) == (10, "wrong: forwarder")
    assert "– permission" in done.stdout.decode()
    done = run(*arguments, "--json", env=emulator.kmstool_environ(), may_print=True)
    assert done.code == 10
    assert json.loads(done.stdout)["findings"][-1]["verdict"] == "not-tried"


def test_strict_is_exit_9(run: Callable[..., Finished], emulator: RunningEmulator) -> None:
    done = run("doctor", "--strict", env=emulator.kmstool_environ(), may_print=True)
    assert done.code == 9
    assert "✗ nsm" in done.stdout.decode()
    as_json = run("doctor", "--strict", "--json", env=emulator.kmstool_environ(), may_print=True)
    assert as_json.code == 9
    report = json.loads(as_json.stdout)  # the report is whole, as it is for the eye
    assert report["findings"][0]["verdict"] == "wrong"
    assert [one["code"] for one in report["caveats"]] == ["simulated-nsm", "custom-roots"]
    assert "--allow-caveat simulated-nsm --allow-caveat custom-roots" in done.hint
    allowed = ("--allow-caveat", "simulated-nsm", "--allow-caveat", "custom-roots")
    done = run("doctor", "--strict", *allowed, env=emulator.kmstool_environ())
    assert done.code == 0


def test_ctrl_c_ends_a_check_that_hangs(emulator: RunningEmulator) -> None:
    with HostileServer(None) as server:
        with subprocess.Popen(
            command("doctor", "--via", f"direct={server.address}"),
            env=environment(emulator.kmstool_environ()),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            for _ in range(400):  # the forwarder's check, then the handshake's
                if server.connections >= 2:
                    break
                time.sleep(0.05)
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=20)
        assert process.returncode == 130
        assert time.monotonic() - started < 5
        assert "kmstool: error: interrupted" in stderr


@pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed")
def test_a_clock_that_is_ten_minutes_ahead(emulator: RunningEmulator) -> None:
    policy = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
    text = json.dumps({"Version": "2012-10-17", "Statement": [policy]})
    arn = emulator.admin_client().create_key(Policy=text)["KeyMetadata"]["Arn"]
    done = subprocess.run(
        ["faketime", "+10 minutes", *command("doctor", "--key-id", arn)],
        env=environment(emulator.kmstool_environ()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 10
    assert "the document's timestamp is 600 s behind, KMS' Date is 60" in done.stdout
    assert "kmstool: error: wrong: clock, permission" in done.stderr
    assert "warning[clock-skew]" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--parent", "--operation", "decrypt"), "--operation means nothing with --parent"),
        (("--parent", "--timeout", "1"), "--timeout means nothing with --parent"),
        (("--parent", "--via", "relay=unix:/x"), "--via names a forwarder with --parent: direct="),
        (("--inside", "--config", "x"), "--config means nothing with --inside"),
        (("--key-id", "alias/x"), "is an alias, not a key ARN"),
        (("--inside", "--via", "relay", "--via", "direct"), "--via names a relay and another way"),
        (("--operation", "encrypt"), "invalid value"),
    ],
)
def test_what_makes_no_sense_is_refused(
    run: Callable[..., Finished], emulator: RunningEmulator, arguments: tuple[str, ...], said: str
) -> None:
    done = run("doctor", *arguments, env=emulator.kmstool_environ())
    assert done.code == 2
    assert said in done.error


def test_where_it_is_by_itself(run: Callable[..., Finished], tmp_path: Path) -> None:
    file = tmp_path / "parent.toml"
    file.write_text('[[forward]]\nlisten = "unix:/nonexistent/x"\nto = "127.0.0.1:9"\n')
    done = run(
        *("doctor", "--json", "--config", str(file)),
        env={"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)},
        may_print=True,
    )
    assert done.code == 10
    assert done.json["where"] == "parent"
    assert "note: there is no /dev/nsm" in done.stderr
    verdicts = {one["check"]: one["verdict"] for one in done.json["findings"]}
    assert verdicts["configuration"] == "fine"
    assert verdicts["forwarder"] == "wrong"
    assert verdicts["targets"] == "wrong"


def test_a_policy_at_hand_says_what_in_it_fails(
    run: Callable[..., Finished], emulator: RunningEmulator, tmp_path: Path
) -> None:
    name = "kms:RecipientAttestation:PCR0"
    root = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
    locked = {
        **root,
        "Action": "kms:Decrypt",
        "Condition": {"StringEqualsIgnoreCase": {name: "11" * 48}},
    }
    admin = {**root, "Principal": {"AWS": "arn:aws:iam::111122223333:root"}}
    text = json.dumps({"Version": "2012-10-17", "Statement": [admin, locked]})
    arn = emulator.admin_client().create_key(Policy=text)["KeyMetadata"]["Arn"]
    (tmp_path / "policy.json").write_text(text)
    done = run(
        *("doctor", "--key-id", arn, "--policy", "policy.json"),
        env=emulator.kmstool_environ(),
        may_print=True,
    )
    assert (done.code, done.error) == (10, "wrong: permission")
    advice = done.stdout.decode().splitlines()[-1]
    assert "do: by the policy in policy.json, " in advice
    assert "PCR0" in advice
    done = run("doctor", "--policy", "policy.json", env=emulator.kmstool_environ())
    assert (done.code, done.error) == (2, "--policy is of a key: give --key-id")


@pytest.mark.parametrize(
    ("redirection", "said"),
    [
        ("> /dev/full", "output could not be written: no space left on device"),
        (">&-", "stdout could not be written: it is closed"),
        ("| true", None),
    ],
)
def test_nobody_takes_the_report(
    emulator: RunningEmulator, redirection: str, said: str | None
) -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; kmstool doctor {redirection}"],
        env={**environ(), **emulator.kmstool_environ()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 11
    assert "bug" not in done.stderr
    if said is not None:
        assert f"kmstool: error: {said}\n" in done.stderr

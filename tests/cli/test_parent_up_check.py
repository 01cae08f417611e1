"""`kmstool parent up --check`: what is fine, what is not, and how it is mended."""

from pathlib import Path

import pytest
from support.processes import Finished, run_kmstool

FORWARD = '[[forward]]\nlisten = "unix:direct"\nto = "127.0.0.1:443"\n'
CREDENTIALS = '[credentials]\nlisten = "unix:credentials"\n'


def check(folder: Path, *options: str) -> Finished:
    return run_kmstool("parent", "up", *options, directory=folder, may_print=True)


def test_what_is_fine_is_named_and_nothing_is_started(tmp_path: Path) -> None:
    (tmp_path / "kmstool-parent.toml").write_text(FORWARD + CREDENTIALS)
    done = check(tmp_path, "--check")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.decode().splitlines() == [
        "fine   forward: unix:direct to 127.0.0.1:443",
        "fine   credentials: unix:credentials, those of this instance",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["kmstool-parent.toml"]


def test_each_mistake_is_explained(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    # Named beside the file, wherever the command is run.
    (tmp_path / "sub" / "list.yaml").write_text("allowlist: [{address: 127.0.0.1, port: 444}]")
    text = 'allowlist = "list.yaml"\n' + FORWARD + "[credentials]\nlisten = 3\n"
    (tmp_path / "sub" / "p.toml").write_text(text)
    done = check(tmp_path, "--check", "--config", "sub/p.toml")
    assert done.code == 10
    assert done.stdout.decode().splitlines() == [
        "fine   forward: unix:direct to 127.0.0.1:443",
        "wrong  [credentials], listen: a number stands where a string should",
        "       put it in quotes",
        "wrong  [[forward]] 1, to: 127.0.0.1:443 is not on the allow list",
        "       did you mean 127.0.0.1:444?",
    ]
    assert done.error == "'sub/p.toml' has 2 mistakes"


def test_without_check_it_is_wrong_data_and_every_mistake_is_told(tmp_path: Path) -> None:
    (tmp_path / "kmstool-parent.toml").write_text(FORWARD + "[credentials]\n[relay]\n")
    done = check(tmp_path)
    assert (done.code, done.stdout) == (3, b"")
    for place in ("[credentials], listen", "[relay], listen", "[relay], allow_keys"):
        assert f"{place}: it is missing" in done.stderr
    assert "(and 2 more)" in done.stderr


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_a_file_that_cannot_be_read(options: tuple[str, ...], tmp_path: Path) -> None:
    done = check(tmp_path, *options)
    assert (done.code, done.stdout) == (11, b"")
    assert done.error == "cannot read 'kmstool-parent.toml': no such file or directory"
    assert "--config FILE" in done.hint


def test_a_file_beside_it_that_cannot_be_read_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "kmstool-parent.toml").write_text('allowlist = "gone.yaml"\n' + FORWARD)
    done = check(tmp_path, "--check")
    assert done.code == 10
    assert b"wrong  allowlist: cannot read 'gone.yaml': no such file" in done.stdout
    assert b"relative to the folder" in done.stdout


def test_nothing_in_the_file_reaches_the_terminal_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "kmstool-parent.toml").write_text('"a\\u001b[31m" = 1\n' + FORWARD)
    done = check(tmp_path, "--check")
    assert done.code == 10
    assert b"\x1b" not in done.stdout

"""docs/reference says what the code does: its tables are compared with it, both ways."""

import inspect
import re
from pathlib import Path

import pytest

from kmstool import errors
from kmstool.caveats import CATALOGUE
from kmstool.cli import compat, emulator
from kmstool.cli.exit_codes import BY_ERROR, ExitCode, exit_code_of
from kmstool.limits import CMS_MAX
from kmstool.policy.check_rules import RULES
from kmstool.policy.keys import is_missing_when_absent
from kmstool.policy.operators import OPERATOR_NAMES
from kmstool.refusals import HINTS, RETRYABLE_CODES

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"

CLASSES = [
    one
    for _, one in inspect.getmembers(errors, inspect.isclass)
    if issubclass(one, errors.KmstoolError) and one is not errors.KmstoolError
]


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next of any level."""
    _, found, rest = text.partition(f"\n{heading}\n")
    assert found, heading
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of each table row, without the head and the ruler."""
    found = [line.strip().strip("|").split(" | ") for line in text.splitlines() if line[:1] == "|"]
    cells = [[cell.strip() for cell in row] for row in found]
    rulers = {index for index, row in enumerate(cells) if set("".join(row)) <= set("-| ")}
    rulers |= {index - 1 for index in rulers}
    return [row for index, row in enumerate(cells) if index not in rulers]


def test_the_row_reader_reads_rows() -> None:
    text = "| a | b |\n|---|---|\n| 1 | 2 |\n\n| c |\n|---|\n| 3 |\n"
    assert rows(text) == [["1", "2"], ["3"]]


# --- errors.md ---------------------------------------------------------------------------------


def code_of(one: type[errors.KmstoolError]) -> ExitCode:
    return next(BY_ERROR[base] for base in one.__mro__ if base in BY_ERROR)


def test_every_error_class_has_its_row_and_no_other_has() -> None:
    documented = {}
    for name, when, attributes, code in rows(section(page("errors.md"), "## Classes")):
        documented[name.strip("`")] = (when, re.findall(r"`(\w+)`", attributes), int(code))
    expected = {}
    for one in CLASSES:
        summary = " ".join((inspect.getdoc(one) or "").split("\n\n")[0].split())
        parameters = inspect.signature(one).parameters
        own = [name for name in parameters if name not in ("message", "hint")]
        expected[one.__name__] = (summary, own, int(code_of(one)))
    assert documented == expected


def test_every_code_of_kms_has_its_row() -> None:
    documented = {
        code.strip("`"): (retried, hint)
        for code, retried, hint in rows(section(page("errors.md"), "## What KMS says"))
    }
    assert documented == {
        code: ("yes" if code in RETRYABLE_CODES else "no", hint) for code, hint in HINTS.items()
    }


def test_the_bound_on_a_cms_is_the_one_documented() -> None:
    assert f"more than {CMS_MAX:,} bytes" in page("errors.md")


# --- exit-codes.md -----------------------------------------------------------------------------


def test_exit_codes() -> None:
    documented = {
        int(code): (meaning, set(re.findall(r"`(\w+)`", classes)))
        for code, meaning, classes in rows(page("exit-codes.md").split("## Other")[0])
    }
    assert documented == {
        int(code): (code.meaning, {one.__name__ for one in CLASSES if code_of(one) is code})
        for code in ExitCode
    }


def test_exit_codes_are_those_of_the_design() -> None:
    """They are promised to scripts: nobody renumbers them by accident."""
    assert [int(code) for code in ExitCode] == [*range(12), 130, 143]


def test_every_error_class_has_an_exit_code() -> None:
    for one in CLASSES:
        assert code_of(one) not in (ExitCode.DONE, ExitCode.BUG)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SettingError("x"), 2),
        (errors.CmsError("x"), 8),
        (errors.DocumentError("x", step="chain"), 8),
        (errors.KmsError("x", operation="Decrypt", status=400, code="X"), 7),
        (errors.KmstoolError("x"), 1),
    ],
)
def test_the_exit_code_of_an_error(error: errors.KmstoolError, code: int) -> None:
    assert exit_code_of(error) == code


def test_exit_codes_of_the_other_programs() -> None:
    table = rows(section(page("exit-codes.md"), "## Other programs"))
    assert ["the same", str(emulator.EXIT_FAILED), "the emulator failed itself"] in table
    drop_in = [row[1] for row in table if row[0] == f"`{compat.PROGRAM}`"]
    assert drop_in == ["0", str(compat.USAGE), str(compat.FAILURE), "130, 143"]


# --- caveats.md --------------------------------------------------------------------------------


def test_every_caveat_has_its_section_with_its_sentence() -> None:
    text = page("caveats.md")
    headings = re.findall(r"^### (\S+)$", text, re.MULTILINE)
    assert headings == list(CATALOGUE)
    for code, caveat in CATALOGUE.items():
        lines = [line for line in section(text, f"### {code}").splitlines() if line[:1] == ">"]
        assert " ".join(line.removeprefix(">").strip() for line in lines) == caveat.sentence
        assert caveat.code == code


def test_every_caveat_is_in_the_table() -> None:
    codes = [re.findall(r"`([\w-]+)`", row[0])[0] for row in rows(page("caveats.md"))]
    assert codes == list(CATALOGUE)


# --- policy-evaluation.md ----------------------------------------------------------------------


def test_every_condition_operator_is_in_the_reference() -> None:
    table = rows(section(page("policy-evaluation.md"), "## Condition operators"))
    named = re.findall(r"`(\w+)`", " ".join(row[0] for row in table if row[0] != "`…IfExists`"))
    assert sorted(named) == sorted(OPERATOR_NAMES)


def test_every_key_of_the_reference_counts_as_missing_when_absent() -> None:
    table = rows(section(page("policy-evaluation.md"), "## Condition keys"))
    keys = re.findall(r"`(\w+:[^`]+)`", " ".join(row[0] for row in table))
    assert len(keys) > 10
    assert all(is_missing_when_absent(key.lower()) for key in keys)
    assert not is_missing_when_absent("kms:viaservice")


def test_the_example_of_the_reference_runs() -> None:
    code = re.findall(r"```python\n(.*?)```", page("policy-evaluation.md"), re.DOTALL)[0]
    policy = '{"Statement": {"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*"}}'
    printed: list[str] = []
    exec(code, {"text": policy, "pcr0": bytes(48), "print": printed.append})
    assert printed[0].startswith("denied: statement number 1 denies it")


# --- policy-check.md ---------------------------------------------------------------------------


def test_every_mistake_has_its_row() -> None:
    found = rows(page("policy-check.md"))
    assert [code.strip("`") for code, *_ in found] == list(RULES)
    for row, rule in zip(found, RULES.values(), strict=True):
        assert row[1:] == [str(rule.weight), rule.meaning, rule.mend]
        assert rule.code == row[0].strip("`")

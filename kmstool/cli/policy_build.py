"""`kmstool policy build`: a key policy for images, as JSON, Terraform or CloudFormation."""

from typing import Final, NamedTuple

import click

from kmstool.caveats import Caveat
from kmstool.cli import console
from kmstool.cli.common import Common, common_options
from kmstool.cli.expectations import IMAGE, PCR
from kmstool.cli.measured import Measured, read_measured
from kmstool.cli.output import Output, check_target, deliver
from kmstool.errors import SettingError
from kmstool.limits import NSM_PCR_COUNT_MAX
from kmstool.policy.build import IMAGE_PCRS, KEY_KINDS
from kmstool.policy.design import KeyPolicy, Outsiders
from kmstool.policy.render import RENDERERS

_PARENT_PCR: Final = 3  # the role of the parent instance, hashed


class _Source(NamedTuple):
    given: tuple[tuple[int, bytes], ...]
    file: str | None
    this_enclave: bool
    also: tuple[int, ...]


@click.command("build")
@click.option(
    "--account",
    metavar="ID",
    required=True,
    help="The account that owns the key, 12 digits: callers of others get nothing.",
)
@click.option(
    "--pcr", type=PCR, multiple=True, help="This PCR has to have this value (repeatable)."
)
@click.option(
    "--pcr-from",
    metavar="FILE",
    help="Take PCR0, PCR1 and PCR2 from an image (EIF), from what nitro-cli build-enclave printed,"
    " or from an attestation document.",
)
@click.option(
    "--this-enclave",
    is_flag=True,
    help="Take PCR0, PCR1 and PCR2 from the security module of the enclave that this runs in.",
)
@click.option(
    "--also-pcr",
    "also_pcrs",
    type=click.IntRange(3, NSM_PCR_COUNT_MAX - 1),
    metavar="N",
    multiple=True,
    help="Take this PCR too: 3 for the parent's role, 8 for the signing certificate (repeatable).",
)
@click.option(
    "--also-image",
    "also_images",
    type=IMAGE,
    multiple=True,
    help="Another image that the key shall open for (repeatable).",
)
@click.option(
    "--key-spec",
    type=click.Choice(list(KEY_KINDS)),
    metavar="SPEC",
    default="SYMMETRIC_DEFAULT",
    show_default=True,
    help=f"What the key will be: {', '.join(KEY_KINDS)}.",
)
@click.option(
    "--administrator",
    metavar="ARN",
    help="A role or user who may disable the key and schedule its deletion, and no more. Without"
    " one nobody ever can.",
)
@click.option("--pcr0-alone", is_flag=True, help="Name PCR0 and neither PCR1 nor PCR2.")
@click.option(
    "--outsiders-may",
    "outsiders",
    type=click.Choice([str(one) for one in Outsiders]),
    metavar="WHAT",
    multiple=True,
    help="Let anybody of the account do this without an attestation (repeatable):"
    f" {', '.join(Outsiders)}.",
)
@click.option(
    "--root-delegation",
    is_flag=True,
    help="Leave everything else to the account's IAM policies, but for what Denies take away.",
)
@click.option(
    "--keep-put-key-policy",
    is_flag=True,
    help="With --root-delegation: leave PutKeyPolicy to them too. The key is then not locked.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(RENDERERS)),
    default="json",
    show_default=True,
    help="The policy alone, or a key with it.",
)
@click.option("-o", "--output", metavar="FILE", help="Write to this file.")
@common_options
@click.pass_obj
def build(
    common: Common,
    *,
    account: str,
    pcr: tuple[tuple[int, bytes], ...],
    pcr_from: str | None,
    this_enclave: bool,
    also_pcrs: tuple[int, ...],
    also_images: tuple[dict[int, bytes], ...],
    key_spec: str,
    administrator: str | None,
    pcr0_alone: bool,
    outsiders: tuple[str, ...],
    root_delegation: bool,
    keep_put_key_policy: bool,
    form: str,
    output: str | None,
) -> None:
    """Write a key policy that lets in these images alone.

    By default what create-key gives its keys: use for the images, nothing for root, and nobody who
    can change it. So make the key with the lockout check bypassed.

    \b
    Example:
      kmstool policy build --account 111122223333 --pcr-from image.json \\
          --administrator arn:aws:iam::111122223333:role/key-admin -o policy.json
      aws kms create-key --policy file://policy.json --bypass-policy-lockout-safety-check
    """
    check_target(output)
    image, caveats = _image(_Source(pcr, pcr_from, this_enclave, also_pcrs), pcr0_alone=pcr0_alone)
    for index in image:
        if any(index not in other for other in also_images):
            raise SettingError(
                f"the policy asks one image for PCR{index}, and another image has no PCR{index}",
                hint="it would open whatever its value is: write that image out, as"
                f" --also-image 0=HEX,1=HEX,2=HEX,{index}=HEX",
            )
    policy = KeyPolicy(
        account=account,
        key_spec=key_spec,
        images=(image, *also_images),
        administrator=administrator,
        pcr0_alone=pcr0_alone,
        outsiders=frozenset(map(Outsiders, outsiders)),
        root_delegation=root_delegation,
        keep_put_key_policy=keep_put_key_policy,
        tools=form != "json",
    )
    caveats += policy.caveats
    common.tolerance().check(caveats)
    if administrator is None and not root_delegation:
        console.note("no administrator was named: nobody can ever disable or delete such a key")
    if root_delegation:
        console.note("the account's IAM policies decide on all that no Deny takes away")
    console.warn(caveats)
    deliver([Output(RENDERERS[form](policy).encode("ascii"), output)])


def _image(source: _Source, *, pcr0_alone: bool) -> tuple[dict[int, bytes], tuple[Caveat, ...]]:
    """The registers of the first image, from what was typed, a file or the enclave's own module."""
    if source.file is not None and source.this_enclave:
        raise click.UsageError(
            "--pcr-from and --this-enclave both name the image", click.get_current_context()
        )
    wanted = ((0,) if pcr0_alone else IMAGE_PCRS) + source.also
    pcrs: dict[int, bytes] = {}
    caveats: tuple[Caveat, ...] = ()
    if source.this_enclave:
        pcrs, caveats = _of_this_enclave(wanted)
    elif source.file is not None:
        measured = read_measured(source.file)
        pcrs, caveats = _chosen(measured, wanted), measured.caveats
    elif not source.given:
        raise click.UsageError(
            "no image was named: give --pcr-from, --this-enclave, or --pcr for each of PCR0, PCR1"
            " and PCR2",
            click.get_current_context(),
        )
    elif source.also:
        raise click.UsageError(
            "--also-pcr takes a register from --pcr-from or --this-enclave; to name its value use"
            " --pcr",
            click.get_current_context(),
        )
    for index, value in source.given:
        if pcrs.setdefault(index, value) != value:
            raise SettingError(
                f"two values are given for PCR{index}", hint="a register has one: leave one out"
            )
    return pcrs, caveats


def _chosen(measured: Measured, wanted: tuple[int, ...]) -> dict[int, bytes]:
    known = {**measured.enclave, **measured.image}
    for index in wanted:
        if index not in known:
            hint = "PCR8 is there if the image was signed when it was built"
            if index == _PARENT_PCR:
                hint = "it is of a running enclave whose parent has a role: take its document"
            raise SettingError(f"the file of --pcr-from has no PCR{index}", hint=hint)
    return {index: known[index] for index in wanted}


def _of_this_enclave(wanted: tuple[int, ...]) -> tuple[dict[int, bytes], tuple[Caveat, ...]]:
    # Not at the top: outside of an enclave there is no security module to open.
    from kmstool.create_key import locked_register  # noqa: PLC0415
    from kmstool.session import open_nsm  # noqa: PLC0415

    nsm, caveats = open_nsm()
    with nsm:
        return {index: locked_register(nsm, index) for index in wanted}, caveats

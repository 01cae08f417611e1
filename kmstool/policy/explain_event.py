"""What CloudTrail says of a call beside what this key policy says: do the two agree?

A key policy is one of several: IAM policies, service and resource control policies, permissions
boundaries, session policies, VPC endpoint policies and grants decide too. Sources: AWS KMS
Developer Guide, "Determining access to AWS KMS keys"; IAM User Guide, "Troubleshoot access denied
error messages", whose phrases name the kind of the policy that refused.
"""

from typing import Final

from kmstool.errors import printable
from kmstool.policy.cloudtrail import CloudTrailEvent
from kmstool.policy.explain import Explanation, Verdict
from kmstool.policy.printable import cut


def event_line(event: CloudTrailEvent) -> str:
    """Who asked for what, when, and what KMS did."""
    who = printable(event.session or event.principal or "a caller of another account")
    outcome = "KMS did it" if event.done else f"KMS refused it with {_code(event)}"
    return f"{event.operation} by {who} at {event.time.isoformat()}: {outcome}"


def event_advice(event: CloudTrailEvent, explanation: Explanation) -> list[str]:
    """Sentences on how the event and the explanation go together."""
    said = (event.error_message or "").lower()
    found = [sentence for phrase, sentence in _PHRASES.items() if phrase in said]
    if not event.done and not event.denied:
        found.append(f"{_code(event)} is not a matter of permission: no policy changes it")
    elif event.denied and explanation.verdict is Verdict.ALLOWED and not found:
        found.append(
            "KMS refused what this key policy allows: something else denies it (an IAM policy, a"
            " service or resource control policy, a permissions boundary, a session policy, a VPC"
            " endpoint's policy), or the key had another policy then"
        )
    elif event.done and explanation.verdict is Verdict.DENIED:
        found.append(
            "KMS did what this key policy does not allow: a grant allows it, the caller's IAM"
            " policies do, or the key had another policy then"
        )
    return found


def _code(event: CloudTrailEvent) -> str:
    return printable(cut(event.error_code or ""))


# A message may end its sentence with one of these; the keys are of one length of meaning only.
_PHRASES: Final = {
    "explicit deny in a service control policy": "KMS' message says that a service control policy"
    " of the organization denies it: no key policy gets around that",
    "explicit deny in a resource control policy": "KMS' message says that a resource control policy"
    " of the organization denies it: no key policy gets around that",
    "explicit deny in an identity-based policy": "KMS' message says that an IAM policy of the"
    " caller denies it: no key policy gets around that",
    "explicit deny in a session policy": "KMS' message says that the session's policy denies it:"
    " whoever assumed the role passed it",
    "explicit deny in a vpc endpoint policy": "KMS' message says that the VPC endpoint's policy"
    " denies it",
    "no vpc endpoint policy allows": "KMS' message says that the VPC endpoint's policy does not"
    " allow it",
    "no session policy allows": "KMS' message says that the session's policy does not allow it:"
    " whoever assumed the role passed it",
    "no permissions boundary allows": "KMS' message says that the role's permissions boundary does"
    " not allow it",
    "explicit deny in a permissions boundary": "KMS' message says that the role's permissions"
    " boundary denies it",
    "explicit deny in a resource-based policy": "KMS' message says that the key policy denies it",
    "no resource-based policy allows": "KMS' message says that the key policy does not allow it",
    "no identity-based policy allows": "KMS' message says that no IAM policy of the caller allows"
    " it: the key policy left the decision to those",
}

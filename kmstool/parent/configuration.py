"""`kmstool-parent.toml`: what `kmstool parent up` starts. Pure: bytes in, settings out.

The values themselves stand in `settings.py`, and can be taken from here.
"""

from kmstool.parent.settings import (
    Configuration,
    CredentialsSettings,
    ForwardLimits,
    RelaySettings,
    Route,
    Target,
    make_target,
    parse_target,
)

__all__ = [
    "Configuration",
    "CredentialsSettings",
    "ForwardLimits",
    "RelaySettings",
    "Route",
    "Target",
    "make_target",
    "parse_target",
]

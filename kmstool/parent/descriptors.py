"""How many descriptors this process may have: raised to what its connections need.

The soft limit of a shell or of systemd is 1,024; a connection takes two, and four where two
addresses of its target are tried at once.
"""

import resource

_APIECE = 2
_OTHERS = 128  # listeners, log, metrics, look-ups, a second attempt here and there


def raise_limit(connections: int) -> int:
    """Raises the soft limit for so many connections, as far as the hard one allows.

    Returns:
        The connections that there are descriptors for: fewer where the hard limit is too low.
    """
    wanted = connections * _APIECE + _OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    return max(0, (soft - _OTHERS) // _APIECE)

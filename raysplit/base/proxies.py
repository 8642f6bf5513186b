"""The environment's proxies, which decide how a server is asked."""

from __future__ import annotations

import os

# In the order in which most clients look for them, small letters before capitals.
PROXY_VARIABLES = tuple(
    name for kind in ("http_proxy", "https_proxy", "all_proxy") for name in (kind, kind.upper())
)


def network_remedy() -> str:
    """Return what to look at where a server cannot be asked, such as "mend or unset all_proxy".

    Values are left out: a password may be in them.
    """
    given = [name for name in PROXY_VARIABLES if os.environ.get(name)]
    return f"mend or unset {' and '.join(given)}" if given else "check the network"

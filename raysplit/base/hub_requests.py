"""How long a request to the Hugging Face hub may take.

huggingface_hub waits for ever where a hub takes the connection and never answers: most of its
requests have no limit, and a data set's have one of a minute that is tried six times.
"""

# huggingface_hub leaves the clients' kind open: httpx or httpx2, by its version.
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import logging
from typing import Any

# Says at each try what our own error says once they are over.
_TRIES = "huggingface_hub.utils._http"


def limit_hub_requests() -> None:
    """Let no request of this process wait longer for the hub's next bytes than its user allows.

    That is the larger one of HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT, in s (10 by default).
    """
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def limited() -> Any:  # noqa: ANN401 - see above
        client = default_client_factory()
        client.event_hooks["request"].append(_limit)
        return client

    set_client_factory(limited)
    logging.getLogger(_TRIES).setLevel(logging.ERROR)


def hub_timeout_s() -> float:
    """Return the longest wait for the next bytes of an answer."""
    from huggingface_hub import constants

    return max(constants.HF_HUB_ETAG_TIMEOUT, constants.HF_HUB_DOWNLOAD_TIMEOUT)


def _limit(request: Any) -> None:  # noqa: ANN401
    limit_s = hub_timeout_s()
    timeouts = request.extensions["timeout"]
    for wait in ("connect", "read", "write", "pool"):
        timeouts[wait] = min(timeouts.get(wait) or limit_s, limit_s)

"""Whether the Hugging Face hub and W&B answer; both are optional, so silence is a warning."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable

from raysplit.doctor.check import Check

_OFFLINE_VALUES = {"1", "true", "yes", "on", "offline", "disabled", "dryrun"}


def check_hugging_face(timeout_s: float) -> Check:
    """Return whether models and datasets can be downloaded."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in _OFFLINE_VALUES:
        return Check("Hugging Face", "ok", "offline by HF_HUB_OFFLINE")
    url = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    return _answer(
        "Hugging Face", url, "the embedded model works; else use a local folder", timeout_s
    )


def check_wandb(timeout_s: float) -> Check:
    """Return whether runs can be sent to W&B."""
    if os.environ.get("WANDB_MODE", "").lower() in _OFFLINE_VALUES:
        return Check("W&B", "ok", "offline by WANDB_MODE")
    url = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    return _answer(
        "W&B",
        url,
        "runs are kept offline; send them later, in RUN/tracking: `wandb sync wandb/offline-run-*`",
        timeout_s,
    )


def _answer(name: str, url: str, remedy: str, timeout_s: float) -> Check:
    problem = within(timeout_s, lambda: _request_problem(url, timeout_s))
    if problem is None:
        return Check(name, "warning", f"{url} gave no answer in {timeout_s:g} s", remedy)
    if problem:
        return Check(name, "warning", f"{url} is out of reach ({problem})", remedy)
    return Check(name, "ok", f"{url} answers")


def _request_problem(url: str, timeout_s: float) -> str:
    """Return why the server cannot be reached, or ""; a refusal (4xx) is an answer."""
    try:
        request = urllib.request.Request(url, method="HEAD")
        urllib.request.urlopen(request, timeout=timeout_s).close()
    except urllib.error.HTTPError as answer:
        return f"status {answer.code}" if answer.code >= 500 else ""
    except (OSError, ValueError) as reason:
        return str(getattr(reason, "reason", reason))[:100]
    return ""


def within(timeout_s: float, work: Callable[[], str]) -> str | None:
    """Return what `work` returns, or None after the timeout (name look-ups know none of their own).

    The thread is left behind; it is a daemon, so it does not hold up the end of the process.
    """
    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(timeout_s)
    return results[0] if results else None

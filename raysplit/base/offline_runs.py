"""The commands that send W&B runs which were kept offline."""

from __future__ import annotations

import shlex
from pathlib import Path

SYNC_COMMAND = 'for run in wandb/offline-run-*; do wandb sync "$run"; done'
"""Sends every start, from a run's folder `tracking`.

Given several, W&B sends none if one is empty, as after a kill.
"""


def sync_command(tracking: Path) -> str:
    """Return what sends the runs of one folder `tracking`."""
    return f"cd {shlex.quote(str(tracking))} && {SYNC_COMMAND}"


def sync_all_command(runs: Path) -> str:
    """Return what sends those of every run folder in a folder."""
    folders = f"{shlex.quote(str(runs))}/*/tracking"
    return f'for folder in {folders}; do (cd "$folder" && {SYNC_COMMAND}); done'

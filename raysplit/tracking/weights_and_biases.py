"""Log a run to Weights & Biases, online or into files for `wandb sync`."""

from __future__ import annotations

import logging
import netrc
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from typing_extensions import override

from raysplit.tracking.base import Cell, Tracker
from raysplit.tracking.config import TrackingConfig

_LOCAL_START_S = 90.0  # W&B's service has to start on a busy machine, too
_log = logging.getLogger(__name__)

Mode = Literal["online", "offline", "disabled"]


class WandbTracker(Tracker):
    """One W&B run; where the server does not answer at the start, an offline run instead.

    Attributes:
        reachable: False once the server did not answer, for all runs that this process still opens:
            a sweep waits for it once, not once a trial.
    """

    reachable: ClassVar[bool] = True

    def __init__(
        self, config: TrackingConfig, folder: Path, *, group: str, run: str, run_id: str
    ) -> None:
        import wandb

        self._wandb = wandb

        def start(mode: Mode) -> wandb.Run:
            return wandb.init(
                project=config.project,
                entity=config.entity,
                group=group,
                name=run,
                id=run_id,
                # Without a server there is nothing to ask; the same id joins the parts at the sync.
                resume="allow" if mode == "online" else None,
                dir=str(folder),
                mode=mode,
                settings=wandb.Settings(
                    silent=True,
                    console="off",  # standard output may hold anything
                    disable_git=True,
                    x_disable_stats=True,
                    init_timeout=config.timeout_s if mode == "online" else _LOCAL_START_S,
                    login_timeout=config.timeout_s,
                    finish_timeout=config.timeout_s,
                    # Seeds and trials of one process are runs of their own.
                    reinit="create_new",
                ),
            )

        mode = _mode(config) if self.reachable else "offline"
        try:
            self._run = start(mode)
        except Exception as error:
            if mode != "online":
                raise
            _log.warning("W&B cannot be reached (%r); logging offline into %s", error, folder)
            WandbTracker.reachable = False
            # W&B's service still holds the id of the attempt.
            wandb.teardown()
            self._run = start("offline")
        # Own steps: W&B's counter would refuse what a resumed run logs again.
        self._run.define_metric("*", step_metric="step")

    @override
    def log_config(self, config: Mapping[str, object]) -> None:
        # W&B leaves the type of the mapping open.
        self._run.config.update(dict(config), allow_val_change=True)  # pyright: ignore[reportUnknownMemberType]

    @override
    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self._run.log({**metrics, "step": step})

    @override
    def log_figure(self, name: str, png: Path) -> None:
        self._run.log({name: self._wandb.Image(str(png))})

    @override
    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        table = self._wandb.Table(columns=list(columns))
        for row in rows:
            table.add_data(*row)
        self._run.log({name: table})

    @override
    def log_artifact(self, path: Path, *, name: str, kind: str) -> None:
        artifact = self._wandb.Artifact(re.sub(r"[^\w.-]+", "-", name), type=kind)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in filter(Path.is_file, files):
            inside = file.relative_to(path if path.is_dir() else path.parent)
            # "immutable": W&B reads the file where it is, instead of keeping a copy elsewhere.
            artifact.add_file(str(file), name=inside.as_posix(), policy="immutable")
        self._run.log_artifact(artifact)

    @override
    def finish(self, *, failed: bool = False) -> None:
        self._run.finish(exit_code=int(failed))


def _mode(config: TrackingConfig) -> Mode:
    if config.mode != "auto":
        return config.mode
    asked = os.environ.get("WANDB_MODE")
    if asked in ("online", "offline", "disabled"):
        return asked
    return "online" if _key_at_hand() else "offline"


def _key_at_hand() -> bool:
    """Say whether W&B would find an API key, without keeping it."""
    import wandb

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    server = wandb.setup().settings.base_url
    hosts = [urlsplit(server).netloc]
    if server == wandb.Settings().base_url:  # W&B's own server, whatever its name is by now
        hosts.append("api.wandb.ai")
    try:
        entries = netrc.netrc(os.environ.get("NETRC") or Path.home() / ".netrc")
    except (OSError, netrc.NetrcParseError):
        return False
    return any(entries.authenticators(host) for host in hosts)

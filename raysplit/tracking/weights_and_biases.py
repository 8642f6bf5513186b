"""Log a run to Weights & Biases, online or into files for `wandb sync`.

    FOLDER/wandb/        W&B's own folders, one a start of a run
          /artifacts/    copies of what was logged, by their hash: the original may change
          /tmp/          W&B's temporary files; a killed process leaves them here

An offline run names the copies relative to FOLDER, so it can be sent from there, wherever that was
moved to, a start at a time (`raysplit.base.offline_runs`).
"""

from __future__ import annotations

import logging
import netrc
import os
import re
import shutil
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from typing_extensions import override

from raysplit.base.files import replacing, sha256_of_file
from raysplit.base.offline_runs import sync_command
from raysplit.tracking.base import Cell, Tracker
from raysplit.tracking.config import TrackingConfig

_LOCAL_START_S = 90.0  # W&B's service has to start on a busy machine, too
_log = logging.getLogger(__name__)

Mode = Literal["online", "offline", "disabled"]
# What WANDB_MODE may say; the last two are W&B's older words.
_MODES: dict[str, Mode] = {
    "online": "online",
    "offline": "offline",
    "disabled": "disabled",
    "run": "online",
    "dryrun": "offline",
}


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
        self._folder = folder.resolve()  # W&B's service has a working directory of its own
        with _temporary_files_in(self._folder / "tmp"):
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
                dir=str(self._folder),
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
            _log.warning(
                "W&B cannot be reached (%r); logging offline; to send it later: %s",
                error,
                sync_command(folder),
            )
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
        if self._run.offline:
            # As a file of the run only: W&B would also make an artefact of it, by absolute path.
            table.bind_to_run(self._run, name, self._run.step)  # pyright: ignore[reportUnknownMemberType]
        with _data_folder(self._folder / "tmp"):
            self._run.log({name: table})

    @override
    def log_artifact(self, path: Path, *, name: str, kind: str) -> None:
        artifact = self._wandb.Artifact(re.sub(r"[^\w.-]+", "-", name), type=kind)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in filter(Path.is_file, files):
            inside = file.relative_to(path if path.is_dir() else path.parent)
            copy = self._kept_copy(file)
            # "immutable": W&B reads our copy, instead of making one elsewhere.
            entry = artifact.add_file(str(copy), name=inside.as_posix(), policy="immutable")
            if self._run.offline:
                entry.local_path = str(copy.relative_to(self._folder))
        self._run.log_artifact(artifact)

    def _kept_copy(self, file: Path) -> Path:
        copy = self._folder / "artifacts" / sha256_of_file(file)[:16] / file.name
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            with replacing(copy) as new:
                shutil.copyfile(file, new)
        return copy

    @override
    def finish(self, *, failed: bool = False) -> None:
        self._run.finish(exit_code=int(failed))


@contextmanager
def _temporary_files_in(folder: Path) -> Generator[None]:
    """Let W&B make its temporary folders there, which it does as it is imported."""
    folder.mkdir(parents=True, exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextmanager
def _data_folder(folder: Path) -> Generator[None]:
    """Let W&B copy what it is about to upload there instead of into the home folder."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]
        else:
            os.environ["WANDB_DATA_DIR"] = before


def _mode(config: TrackingConfig) -> Mode:
    if config.mode != "auto":
        return config.mode
    asked = _MODES.get(os.environ.get("WANDB_MODE", ""))
    return asked or ("online" if _key_at_hand() else "offline")


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

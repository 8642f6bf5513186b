"""Stage 3: train the agents, each on the rewards that it asks for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from envs.family import training_problem
from envs.oracle import Oracle
from envs.params import LayerSplitParams
from raysplit.base.errors import UserError
from raysplit.base.files import sha256_of_file, write_atomically
from raysplit.base.memory import free_memory_bytes, peak_memory_bytes, reset_peak_memory
from raysplit.base.progress import Advance, console, progress_bar, say
from raysplit.measure.on_ray.session import usable_cores
from raysplit.pipeline.oracles import solved_grid
from raysplit.pipeline.over_radio import surrogate_source
from raysplit.pipeline.problem import measured_problem
from raysplit.pipeline.rewards import RewardSources, TrainingCost, reward_sources
from raysplit.pipeline.run_folder import RunFolder
from raysplit.pipeline.side_by_side import run_side_by_side
from raysplit.pipeline.tracked import tracker_of, training_config
from raysplit.tracking import Tracker
from tuning.agent import CurvePoint
from tuning.evaluate import judge_of
from tuning.policy import ExportedPolicy
from tuning.settings import TrainConfig
from tuning.train import train

_TRAINING_BYTES = (
    1_000_000_000  # of a training's process; measured: bench `learning`, training_rss_gb
)
TRAINING_COST_FILE = "training_cost.json"
Judge = Callable[[ExportedPolicy], float]


def run(folder: RunFolder) -> list[Path]:
    """Train every agent and seed: agents/NAME/seed-N/."""
    params, _ = measured_problem(folder)
    agents = folder.path / "agents"
    _remove_agents_of_another_surrogate(agents, folder.path / "surrogate")
    if folder.workers and any(
        config.num_env_runners for config in folder.experiment.agents.values()
    ):
        folder.workers.close()  # RLlib's runners need the cores that idle workers hold
    judge = _judge(folder, params)
    with reward_sources(folder, params) as sources:
        for name, config in folder.experiment.agents.items():
            say_if_ray_starts(folder, name)
            with progress_bar(f"train {name}", config.total_steps * len(config.seeds)) as advance:
                processes = _processes(folder, config)
                if processes > 1:
                    calls = [(str(folder.path), name, seed) for seed in config.seeds]
                    run_side_by_side(train_apart, calls, processes, advance)
                    continue
                for seed in config.seeds:
                    _train_one(folder, params, sources, name, seed, advance, judge)
    return [
        p
        for name, config in folder.experiment.agents.items()
        for p in _outputs(folder, name, config)
    ]


def _processes(folder: RunFolder, config: TrainConfig) -> int:
    """Return how many seeds train side by side: one a core, where each is a matter of its own."""
    apart = config.rewards == "surrogate" and config.num_env_runners == 0
    if not apart or folder.experiment.backend.kind == "inprocess":
        return 1
    return min(usable_cores(), len(config.seeds), _most_in_memory())


def _most_in_memory() -> int:
    return max(1, int(free_memory_bytes() / 2 / _TRAINING_BYTES))


def train_apart(run: str, name: str, seed: int, advance: Advance) -> None:
    """Train one seed of one agent on the surrogate, in a process of its own."""
    folder = RunFolder.read(Path(run))
    params, _ = measured_problem(folder)
    sources = RewardSources(folder, params, None)
    _train_one(folder, params, sources, name, seed, advance, _judge(folder, params))


def say_if_ray_starts(folder: RunFolder, name: str) -> None:
    """RLlib's remote env runners are actors, whatever the backend is."""
    runners = folder.experiment.agents[name].num_env_runners
    if runners and folder.experiment.backend.kind == "inprocess":
        console.print(
            f"agents.{name}.num_env_runners is {runners}, so RLlib starts a local Ray for it; "
            "with 0 all stays in this process"
        )


def _train_one(
    folder: RunFolder,
    params: LayerSplitParams,
    sources: RewardSources,
    name: str,
    seed: int,
    advance: Advance,
    judge: Judge,
) -> None:
    """Train one seed of one agent and write what that cost beside it."""
    config = folder.experiment.agents[name]
    home = folder.agent_folder(name, seed)
    trained_before, cost_known = (home / "agent.json").exists(), _is_cost_known(home)
    source = sources.source_of(config, seed, home)
    reset_peak_memory()
    training = {"agent": name, **training_config(config, seed)}
    with tracker_of(folder, f"train-{name}-{seed}", training=training) as tracker:
        train(
            training_problem(params),
            source,
            config,
            seed,
            home,
            _reporter(advance, tracker, seed),
            judge,
        )
    if not cost_known:
        peak = None if trained_before else peak_memory_bytes()
        sources.cost(config, peak).save(home / TRAINING_COST_FILE)


def _is_cost_known(home: Path) -> bool:
    """Tell whether a training's cost is known; where its file is damaged, that is said."""
    path = home / TRAINING_COST_FILE
    if not path.exists():
        return False
    try:
        TrainingCost.load(path)
    except UserError as error:
        say(str(error), "yellow", "")
        return False
    return True


def _judge(folder: RunFolder, params: LayerSplitParams) -> Judge:
    """Score a policy exactly on the surrogate, wherever its own rewards come from.

    The episodes played in training are few: their mean says more about the links that they had.
    """
    judged = params.for_judging()
    grid_points = solved_grid(judged, folder.experiment.losses())
    return judge_of(Oracle(judged, surrogate_source(folder), grid_points=grid_points))


def _reporter(advance: Advance, tracker: Tracker, seed: int) -> Callable[[CurvePoint], None]:
    """Move the bar and log each iteration."""
    done = 0

    def report(point: CurvePoint) -> None:
        nonlocal done
        mean = point.episode_return
        advance(
            point.step - done, f"seed {seed}" + ("" if mean is None else f", return {mean:.3f}")
        )
        done = point.step
        metrics = {"episode_return": mean, "judged_return": point.judged_return}
        known = {name: value for name, value in metrics.items() if value is not None}
        tracker.log_metrics(known, step=point.step)

    return report


def _outputs(folder: RunFolder, name: str, config: TrainConfig) -> list[Path]:
    homes = [folder.agent_folder(name, seed) for seed in config.seeds]
    policies = [
        path
        for home in homes
        for kind in ("policy", "untrained")
        for path in sorted((home / kind).iterdir())
    ]
    return [
        *(home / "agent.json" for home in homes),
        *(home / TRAINING_COST_FILE for home in homes),
        *policies,
    ]


def _remove_agents_of_another_surrogate(agents: Path, surrogate: Path) -> None:
    """Agents are recognised by their settings; what they learned from is noted beside them."""
    note = agents / ".surrogate.sha256"  # no agent's name begins with a dot
    parts = sorted(surrogate.glob("surrogate.*"))  # the weights and what they mean
    digest = " ".join(sha256_of_file(path) for path in parts)
    if agents.exists() and (not note.exists() or note.read_bytes() != digest.encode()):
        shutil.rmtree(agents)
    agents.mkdir(exist_ok=True)
    write_atomically(note, digest)

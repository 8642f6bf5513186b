"""Would the tests notice wrong code? `python -m tools.mutate [MODULE ...] [--survivors]`.

Changes one thing in a module (mutmut's operators: another number, comparison, operator, argument,
string, a dropped `case`, ...), runs the tests that execute the changed lines, and counts the
changes that no test notices. A change in a function is put into a fork of a process that has
already collected the tests, as new `__code__`; a change of what runs on import, into a fork of one
that has imported the libraries. So each costs what its tests cost, and no file is touched.

Never changed, since no test is about it: docstrings, annotations, decorators, `__all__`, `len` and
`isinstance`, and the texts of errors (`raise` statements and calls of `...Error`).

`tools/equivalent_mutants.yaml` names the changes that leave behaviour as it is, with the reason.
Writes `bench/reports/mutants.json`.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.machinery import SourceFileLoader
from itertools import zip_longest
from pathlib import Path
from typing import Any

import libcst as cst
import pytest
import yaml
from coverage import Coverage
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "bench" / "reports" / "mutants.json"
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.yaml")
_LINK = ("tests/test_link.py", "tests/test_fading.py")
_ENVS = ("tests/test_oracle.py", "tests/test_vector_env.py")
_PHYSICS = (*_ENVS, "tests/test_envs.py", "tests/test_integer_types.py")
_PLAN = ("tests/test_plan.py", "tests/test_axis.py", "tests/test_tables.py")
TARGETS = {  # module -> the tests that are about it
    **{f"raysplit.link.{name}": _LINK for name in ("channel", "config", "coordinates")},
    **{f"raysplit.link.{name}": _LINK for name in ("fading", "gains", "signal", "state")},
    "raysplit.perplexity.estimate": ("tests/test_estimate.py",),
    "raysplit.perplexity.nll": ("tests/test_perplexity.py",),
    "raysplit.measure.plan": _PLAN,
    "raysplit.link.axis": _PLAN,
    "envs.checks": _PHYSICS,
    "envs.dynamics": _PHYSICS,
    "envs.oracle": _ENVS,
}
_PYTEST = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:logging"]
_PYTEST += ["-m", "not ray and not slow and not gpu and not network"]
# The libraries are imported before pytest looks for what it would rewrite.
_PYTEST += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
_OURS = {"raysplit", "envs", "tuning", "tests", "conftest", "tools", "__main__"}
_BYTES = 16 * 2**30  # of address space, for one change's tests


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: the module's source with it, the lines that it concerns, and their texts.

    `on_import` tells that the changed line runs on import, so every test may depend on it.
    """

    source: str
    lines: range
    before: str
    after: str
    on_import: bool

    def is_in(self, entries: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the entry of a report, or of the equivalent changes, that is this change."""
        same = (e for e in entries if (e["before"], e["after"]) == (self.before, self.after))
        return next(same, None)


def mutants(module: str) -> list[Mutant]:
    """Return every change of a module that could matter."""
    source = _path(module).read_text()
    wrapper = MetadataWrapper(cst.parse_module(source))
    positions = wrapper.resolve(PositionProvider)
    parts = [wrapper.module.code_for_node(top) for top in wrapper.module.body]
    start, end = source.split("".join(parts))
    found: dict[str, Mutant] = {}
    for n, top in enumerate(wrapper.module.body):
        for node, statement, on_import in _nodes(top, top, True):
            operators = [make for kind, make in mutation_operators if isinstance(node, kind)]
            for new in (new for make in operators for new in make(node)):
                part = wrapper.module.code_for_node(top.deep_replace(node, new))
                changed = "".join([start, *parts[:n], part, *parts[n + 1 :], end])
                whole = statement if isinstance(statement, cst.SimpleStatementLine) else node
                lines = range(positions[statement].start.line, positions[whole].end.line + 1)
                with suppress(SyntaxError):
                    compile(changed, module, "exec", dont_inherit=True)
                    texts = _difference(source, changed)
                    found[changed] = Mutant(changed, lines, *texts, on_import)
    found.pop(source, None)
    return list(found.values())


def _nodes(
    node: cst.CSTNode, statement: cst.CSTNode, on_import: bool
) -> Iterator[tuple[cst.CSTNode, cst.CSTNode, bool]]:
    """Yield what may be changed, the statement around it, and whether that runs on import."""
    match node:
        case cst.Raise() | cst.Annotation() | cst.Decorator():
            return
        case cst.Call(func=cst.Name(value=name)) if name.endswith(("Error", "len", "isinstance")):
            return
        case cst.Assign(targets=[cst.AssignTarget(target=cst.Name(value="__all__"))]):
            return
        case cst.SimpleStatementLine() | cst.BaseCompoundStatement():
            statement = node
        case _:
            pass
    yield node, statement, on_import
    for child in node.children:
        in_body = isinstance(node, cst.FunctionDef) and child is node.body
        yield from _nodes(child, statement, on_import and not in_body)


class _ChangedFunctions:
    """A pytest plugin: instead of running the tests, runs them once for each change."""

    def __init__(self, module: str, todo: list[Mutant], note: Callable[[Any], object]) -> None:
        self._path, self._todo, self._note = str(_path(module)), todo, note
        self.seconds = 0.0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        covering, libraries = _noted(partial(self._covering, session))
        self.seconds = sum(s for s, _ in {tuple(t) for tests in covering.values() for t in tests})
        _import(libraries)  # also what a test imports while it runs
        functions = [thing for thing in gc.get_objects() if type(thing) is types.FunctionType]
        functions = [f for f in functions if f.__code__.co_filename == self._path]
        gc.freeze()  # a fork that collected garbage would copy every page
        for mutant in self._todo:
            lines = [covering.get(str(line), []) for line in mutant.lines]
            chosen = sorted({tuple(test) for tests in lines for test in tests})  # fastest first
            items = [session.items[n] for _, n in chosen]
            run = partial(self._run, session, mutant.source, functions, items)
            self._note(_verdict(_forked(run, sum(seconds for seconds, _ in chosen))))
        return True

    def _covering(self, session: pytest.Session, note: Callable[[Any], object]) -> int:
        """Note line -> the (seconds, number) of each test that executes it."""
        coverage = Coverage(data_file=None, include=[self._path])
        coverage.start()
        seconds: list[float] = []
        for n, item in enumerate(session.items):
            coverage.switch_context(str(n))
            start = time.process_time()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            seconds.append(time.process_time() - start)
        coverage.stop()
        contexts = coverage.get_data().contexts_by_lineno(self._path)
        lines = {n: [(seconds[int(c)], int(c)) for c in of if c] for n, of in contexts.items()}
        note([lines, _libraries()])
        return session.testsfailed

    def _run(
        self,
        session: pytest.Session,
        source: str,
        functions: list[types.FunctionType],
        items: list[pytest.Item],
    ) -> int:
        codes = dict(_codes(compile(source, self._path, "exec", dont_inherit=True)))
        for function in functions:
            function.__code__ = codes.get(function.__code__.co_qualname, function.__code__)
        for item, following in zip_longest(items, items[1:]):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                break
        return session.testsfailed


class _InMemory(SourceFileLoader):
    """Loads a module from a source in memory; an entry of `sys.meta_path`."""

    def __init__(self, module: str, source: str) -> None:
        super().__init__(module, str(_path(module)))
        self._source = source

    def find_spec(self, name: str, *_: object) -> Any:  # noqa: ANN401 - a module's spec or None
        """Return this module's spec."""
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def get_code(self, fullname: str) -> Any:  # noqa: ANN401 - code
        """Return the code of the changed source."""
        del fullname
        return compile(self._source, self.path, "exec", dont_inherit=True)


def verdicts(module: str, todo: list[Mutant]) -> Iterator[tuple[Mutant, str]]:
    """Yield each change with `killed`, `timeout` or `survived`."""
    tests = TARGETS[module]
    in_functions = [mutant for mutant in todo if not mutant.on_import]

    def changed_functions(note: Callable[[Any], object]) -> int:
        found: list[str] = []
        plugin = _ChangedFunctions(module, in_functions, found.append)
        code = pytest.main([*_PYTEST, *tests], plugins=[plugin])
        note([found, plugin.seconds, _libraries()])
        return int(code)

    found, seconds, libraries = _noted(changed_functions)
    yield from zip(in_functions, found, strict=True)
    _import(libraries)
    for mutant in todo:
        if mutant.on_import:
            run = partial(_run_imported, module, mutant.source, tests)
            yield mutant, _verdict(_forked(run, seconds))


def _run_imported(module: str, source: str, tests: tuple[str, ...]) -> int:
    sys.meta_path.insert(0, _InMemory(module, source))
    return int(pytest.main([*_PYTEST, *tests]))


def run_module(module: str, only: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Return a module's entry in the report; with `only`, everything else counts as killed."""
    equivalent = [e for e in yaml.safe_load(EQUIVALENT.read_text()) if e["module"] == module]
    everything = mutants(module)
    todo = [m for m in everything if not m.is_in(equivalent) and (only is None or m.is_in(only))]
    found = dict(verdicts(module, todo))
    left: list[dict[str, Any]] = []
    counts = Counter[str]()
    for mutant in everything:
        known = mutant.is_in(equivalent)
        verdict = "equivalent" if known else found.get(mutant, "killed")
        counts[verdict] += 1
        if verdict in ("survived", "equivalent"):
            entry = {"line": mutant.lines[0], "before": mutant.before, "after": mutant.after}
            left.append(entry | {"verdict": verdict} | ({"why": known["why"]} if known else {}))
    noticed, all_of_them = counts["killed"] + counts["timeout"], len(everything)
    return {
        "mutants": all_of_them,
        **{verdict: counts[verdict] for verdict in ("killed", "timeout", "survived", "equivalent")},
        "share": round(noticed / all_of_them, 4),
        "share_without_equivalent": round(noticed / (all_of_them - counts["equivalent"]), 4),
        "left": left,
    }


def _verdict(status: int) -> str:
    """Return what a `waitpid` status of a test run says."""
    if os.WIFSIGNALED(status):
        return "timeout" if os.WTERMSIG(status) == signal.SIGXCPU else "killed"
    match os.WEXITSTATUS(status):
        case 0:
            return "survived"
        case 1 | 2:  # a test failed; the module cannot be imported
            return "killed"
        case code:
            sys.exit(f"pytest ended with {code}")


def _forked(child: Callable[[], int], seconds: float | None = None) -> int:
    """Return the `waitpid` status of a silent fork that exits with `child`'s result.

    Where `seconds` of processor time are expected, the fork gets a few times as many.
    """
    if (pid := os.fork()) == 0:
        code = 70
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            if seconds is not None:
                gc.disable()
                limit = round(10 + 3 * seconds)
                resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
                resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
            code = child()
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def _noted(child: Callable[[Callable[[Any], object]], int]) -> Any:  # noqa: ANN401 - JSON
    """Return what `child`, run in a fork, handed to the function that it got."""
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes.json"
        status = _forked(lambda: child(lambda value: notes.write_text(json.dumps(value))))
        if status:
            sys.exit(f"the tests fail on the code as it is (status {status})")
        return json.loads(notes.read_text())


def _libraries() -> list[str]:
    return [name for name in sys.modules if name.split(".")[0] not in _OURS]


def _import(libraries: list[str]) -> None:
    for name in libraries:
        with suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)


def _codes(code: types.CodeType) -> Iterator[tuple[str, types.CodeType]]:
    yield code.co_qualname, code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _path(module: str) -> Path:
    return ROOT / (module.replace(".", "/") + ".py")


def _difference(source: str, changed: str) -> tuple[str, str]:
    """Return the changed lines before and after, without their indentation."""
    old, new = source.splitlines(), changed.splitlines()
    for end in (0, -1):
        while old and new and old[end] == new[end]:
            del old[end], new[end]
    return " ".join(map(str.strip, old)), " ".join(map(str.strip, new))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("modules", nargs="*", default=list(TARGETS))
    parser.add_argument("--survivors", action="store_true", help="run the report's survivors only")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for module in options.modules:
        entries = json.loads(REPORT.read_text())["modules"] if REPORT.exists() else {}
        entries[module] = run_module(module, entries[module]["left"] if options.survivors else None)
        print(
            module,
            {k: v for k, v in entries[module].items() if k not in ("left", "commit")},
            flush=True,
        )
        commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
        entries[module] = {"commit": commit} | entries[module]
        report = {
            "operators": f"mutmut {importlib.metadata.version('mutmut')}",
            "python": platform.python_version(),
            "modules": {name: entries[name] for name in TARGETS if name in entries},
        }
        REPORT.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

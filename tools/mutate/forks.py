"""Runs the tests that a change may concern: in a fork each, so that no file is touched.

A change in a function is put into a fork of a process that has already collected the tests, as new
`__code__`; a change of what runs on import, into a fork of one that has imported the libraries. So
each costs what its tests cost.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import resource
import signal
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib.machinery import SourceFileLoader
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage

from tools.mutate.changes import Mutant, path_of

_PYTEST = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:logging"]
_PYTEST += ["-m", "not ray and not slow and not gpu and not network"]
# The libraries are imported before pytest looks for what it would rewrite.
_PYTEST += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
_OURS = {"raysplit", "envs", "tuning", "tests", "conftest", "tools", "__main__"}
_BYTES = 16 * 2**30  # of address space, for one change's tests


class _ChangedFunctions:
    """A pytest plugin: instead of running the tests, runs them once for each change."""

    def __init__(self, module: str, todo: list[Mutant], note: Callable[[Any], object]) -> None:
        self._path, self._todo, self._note = str(path_of(module)), todo, note
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
        super().__init__(module, str(path_of(module)))
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


def verdicts(
    module: str, todo: list[Mutant], tests: tuple[str, ...]
) -> Iterator[tuple[Mutant, str]]:
    """Yield each change with `killed`, `timeout` or `survived`, as these test files say."""
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

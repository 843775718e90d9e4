"""What a forked child does: run tests, with or without a fault, and tell how that ended."""

from __future__ import annotations

import contextlib
import gc
import importlib.machinery
import inspect
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

LONGEST = 2  # seconds of processor time; slower tests are left out
OPTIONS = ["-q", "-x", "-p", "no:cacheprovider", "--no-header"]

_loaded: dict[str, list[FunctionType]] = {}  # by file, once the tests are loaded


class TooSlow(BaseException):
    """A test took longer than it may."""


def in_child(work: Callable[[], int], *, seconds: float, log: Path) -> int | str:
    """Fork, work there, and return its exit code, or `timeout` or `crash`; all that it started ends with it."""
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        code = 70
        try:
            os.setsid()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 3))
            target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(target, 1)
            os.dup2(target, 2)
            code = int(work())
        finally:
            sys.stdout.flush()
            os._exit(code)
    try:
        _, status = os.waitpid(pid, 0)
    except BaseException:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    with contextlib.suppress(ProcessLookupError):  # what the tests have started
        os.killpg(pid, signal.SIGKILL)
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    return "timeout" if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL) else "crash"


def load(tests: list[str]) -> int:
    """Import the tests, and all that they import, into this process; pytest's exit code."""
    import pytest

    code = int(pytest.main([*OPTIONS, "--collect-only", *tests]))
    here = str(Path.cwd())
    for found in gc.get_objects():
        if type(found) is FunctionType and found.__code__.co_filename.startswith(here):
            _loaded.setdefault(found.__code__.co_filename, []).append(found)
    gc.collect()
    gc.freeze()  # a collection in a child would copy all of torch
    return code


def put_in(path: Path, code: str) -> None:
    """From now on the functions of this file, which is loaded already, do what this code says.

    Where the change lies in a function's body, its code is exchanged, whoever holds the function; else everything
    of the present folder is forgotten, so that the tests import it anew.
    """
    old, new = (list(_functions(compile(text, str(path), "exec"))) for text in (path.read_text(), code))
    # Line numbers may have moved, so places are matched by order.
    changed = {_place(a): b for a, b in zip(old, new, strict=True) if a != b} if len(old) == len(new) else {}
    if changed:
        for found in _loaded[str(path)]:
            found.__code__ = changed.get(_place(found.__code__), found.__code__)
        return
    for name, module in list(sys.modules.items()):
        if (file := getattr(module, "__file__", None)) and Path(file).is_relative_to(Path.cwd()):
            del sys.modules[name]
    plain = importlib.machinery.SourceFileLoader.get_code

    def get_code(self: Any, fullname: str) -> Any:
        if Path(self.path) == path:
            return compile(code, str(path), "exec", dont_inherit=True)
        return plain(self, fullname)

    importlib.machinery.SourceFileLoader.get_code = get_code


def _functions(code: CodeType) -> Iterator[CodeType]:
    """Functions and methods of a module; those inside functions are parts of these."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            if inner.co_flags & inspect.CO_OPTIMIZED:
                yield inner
            else:  # the body of a class
                yield from _functions(inner)


def _place(code: CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno


def run_tests(tests: list[str]) -> int:
    """pytest's exit code, in the present folder."""
    import pytest

    return int(pytest.main([*OPTIONS, *tests]))


class Watch:
    """A plugin of pytest: which lines every test that passes runs, and for how long."""

    def __init__(self, files: list[Path]) -> None:
        import coverage

        self.files = {str(path) for path in files}
        self.coverage = coverage.Coverage(data_file=None, config_file=False, include=sorted(self.files))
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)
        self.began = time.process_time()
        signal.signal(signal.SIGPROF, _too_slow)
        signal.setitimer(signal.ITIMER_PROF, LONGEST)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "teardown" or not report.passed:
            signal.setitimer(signal.ITIMER_PROF, 0)
        if report.when == "call" and report.passed:
            self.seconds[report.nodeid] = round(time.process_time() - self.began, 3)

    def pytest_runtest_logfinish(self) -> None:
        self.coverage.switch_context("")


def _too_slow(_signal: int, _frame: Any) -> None:
    raise TooSlow


def reached(test: str, files: list[Path], into: Path) -> int:
    """Run a file of tests and note the lines that each of them reaches."""
    import pytest

    root = Path.cwd()
    watch = Watch(files)
    watch.coverage.start()
    options = [option for option in OPTIONS if option != "-x"]
    pytest.main([*options, test], plugins=[watch])
    watch.coverage.stop()
    data = watch.coverage.get_data()
    tests: dict[str, dict[str, Any]] = {n: {"seconds": s, "lines": {}} for n, s in watch.seconds.items()}
    for file in data.measured_files():
        for line, contexts in data.contexts_by_lineno(file).items():
            for name in contexts:
                if name in tests:
                    tests[name]["lines"].setdefault(str(Path(file).relative_to(root)), []).append(line)
    into.write_text(json.dumps(tests))
    return 0

"""Configures the tests: eight CPU devices, checked shape annotations, sampling of planted bugs, and a count of
compilations.
"""

import collections
import contextlib
import gc
import hashlib
import json
import os
import subprocess
from collections.abc import Generator, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from jaxtyping import install_import_hook

ROOT = Path(__file__).parents[1]

# Compilation takes most of the time of the tests, so programs are not optimized, and are cached for the next run.
FLAGS = ["--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0"]
if metadata.version("jaxlib").startswith("0.10."):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")  # compiles faster; jaxlib 0.12 has no such flag
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# beartype checks the calls in modules that annotate shapes. pyright checks the other modules.
SHAPED = [path for path in (ROOT / "seqlab").rglob("*.py") if "from jaxtyping import" in path.read_text()]
install_import_hook(
    [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in SHAPED],
    "beartype.beartype",
)
gc.set_threshold(100_000, 20, 20)  # tracing creates many objects, and frequent collection is slow

MAPPINGS = 20_000  # Linux allows a process 65,530; a program uses dozens, and XLA crashes at the limit
COMPILED = "/jax/core/compile/backend_compile_duration"
READ = "/jax/compilation_cache/cache_hits"
SHARE = 8  # one in eight planted bugs of each law is tested


@pytest.fixture(scope="module", autouse=True)
def few_mappings() -> Iterator[None]:
    """Frees compiled programs before they use too many memory mappings of the process."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > MAPPINGS:
        import jax  # reads the variables set above

        jax.clear_caches()


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips the plots after each validation, which take longer than the training of a test."""
    monkeypatch.setattr("seqlab.training.loop.draw_curves", lambda run: None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escapes characters that UTF-8 cannot encode, since a worker that cannot send its report would end silently."""
    report = yield
    report.sections = [(name, escape_surrogates(content)) for name, content in report.sections]
    if report.failed and escape_surrogates(str(report.longrepr)) != str(report.longrepr):
        report.longrepr = escape_surrogates(str(report.longrepr))
    return report


def escape_surrogates(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--mutants",
        choices=("share", "all"),
        default="share",
        help="test a sample of the planted bugs and of the sampled cases, or all of them",
    )
    parser.addoption("--words", type=Path, default=None, help="append the message of each SeqlabError to a file")
    parser.addoption("--max-compilations", type=int, default=None, help="fail if the run compiles more programs")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects all but one in `SHARE` of the planted bugs of each law, and all but one in n of the cases marked
    `sample(n)`. Keeps at least one of each. The selection depends on the commit, so that all of them run over time.
    """
    if config.getoption("mutants") == "all":
        return
    groups = collections.defaultdict(list)
    for item in items:
        test, mark = item.nodeid.partition("[")[0], item.get_closest_marker("sample")
        mutant = item.callspec.params.get("mutant") if hasattr(item, "callspec") else None  # pyright: ignore
        if mutant is not None:
            groups[test, mutant.law, SHARE].append(item)
        elif mark is not None:
            groups[test, mark.kwargs.get("of"), mark.args[0]].append(item)
    commit, left_out = current_commit(), set()
    for (*_, share), group in groups.items():
        drawn = sorted(group, key=lambda item: hashlib.sha256(f"{commit} {item.nodeid}".encode()).digest())
        left_out.update(drawn[-(-len(drawn) // share) :])
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


def current_commit() -> str:
    """Returns the commit of the working tree, or $SEQLAB_COMMIT if it is set (in a copy without git)."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return os.environ.get("SEQLAB_COMMIT") or done.stdout.strip()


class Compilations:
    """Counts the programs that are compiled or read from the cache, and the seconds of each test file."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.counts: collections.Counter[str] = collections.Counter()
        self.seconds: collections.Counter[str] = collections.Counter()

    def listen(self) -> None:
        import jax

        def count(event: str, *_: Any, **__: Any) -> None:
            if event in (COMPILED, READ):
                self.counts[event] += 1

        jax.monitoring.register_event_duration_secs_listener(count)
        jax.monitoring.register_event_listener(count)

    def exceeded(self) -> bool:
        return self.limit is not None and self.counts[COMPILED] > self.limit

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid.partition("::")[0]] += report.duration

    def pytest_testnodedown(self, node: Any) -> None:
        self.counts.update(getattr(node, "workeroutput", {}).get("compilations", {}))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["compilations"] = dict(self.counts)
        elif self.exceeded() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        compiled, read = self.counts[COMPILED], self.counts[READ]
        terminalreporter.section("compilations and slowest files")
        terminalreporter.write_line(f"{compiled:,} programs were needed, and {read:,} of them came from the cache")
        if self.exceeded():
            terminalreporter.write_line(f"FAILED: more than the {self.limit:,} of --max-compilations", red=True)
        for name, seconds in self.seconds.most_common(10):
            terminalreporter.write_line(f"{seconds:7.1f} s  {name}")


def record_errors(path: Path) -> None:
    """Appends the message of each `SeqlabError` that is raised to a file, as a line of JSON."""
    from seqlab.system.errors import SeqlabError

    def initialize(self: SeqlabError, *arguments: object) -> None:
        ValueError.__init__(self, *arguments)
        # A test may have forbidden the process to write.
        with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(str(self)) + "\n")

    SeqlabError.__init__ = initialize  # pyright: ignore[reportAttributeAccessIssue]


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("words") is not None:
        record_errors(config.getoption("words").absolute())
    compilations = Compilations(config.getoption("max_compilations"))
    config.pluginmanager.register(compilations)
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):  # otherwise the workers count
        compilations.listen()

"""Options of ``dask worker`` in a container's command: kept, dropped, or refused with their path."""

from __future__ import annotations

from typing import Any

import pytest

from backends.dask_kubernetes.worker_options import parse
from backends.dask_kubernetes.worker_pod import PRELOAD
from tests.unit.dask_kubernetes.pods import build, worker_of

KEPT = [
    "--nthreads", "2", "--memory-limit", "4GB", "--death-timeout", "30", "--resources", "GPU=2 MEM=10e9",
    "--local-directory", "/data", "--lifetime", "1 hour", "--lifetime-stagger", "2min", "--pid-file", "/tmp/pid",
    "--worker-class", "distributed.Worker", "--preload", "mine.setup", "--preload", "/models/setup.py",
]  # fmt: skip


@pytest.mark.parametrize(
    "container",
    [
        {"args": ["dask-worker", *KEPT]},
        {"args": ["dask", "worker", *KEPT]},
        {"args": KEPT},
        {"command": ["dask-worker"], "args": KEPT},
        {"command": ["/opt/conda/bin/dask", "worker"], "args": KEPT},
        {"command": ["python", "-m", "distributed.cli.dask_worker", *KEPT]},
        {"command": ["python3.11", "-u", "-m", "dask", "worker"], "args": KEPT},
        {"command": KEPT, "args": None},
    ],
)
def test_the_program_may_be_written_in_each_way_or_left_out(container: dict[str, Any]) -> None:
    options = parse(container)
    assert (options.words, options.problems) == (KEPT, ())


@pytest.mark.parametrize("container", [{}, {"args": []}, {"args": ["dask-worker"]}, {"command": ["dask", "worker"]}])
def test_no_options_are_none(container: dict[str, Any]) -> None:
    assert parse(container) == parse({})
    assert (parse(container).words, parse(container).problems) == ([], ())


@pytest.mark.parametrize("address", ["tcp://dask-scheduler:8786", "$(DASK_SCHEDULER_ADDRESS)", "10.0.0.7:8786"])
def test_the_schedulers_address_is_dropped(address: str) -> None:
    for words in (["dask-worker", address, "--nthreads", "2"], ["--nthreads", "2", address], [address, "--nthreads=2"]):
        options = parse({"args": words})
        assert (options.words, options.problems) == (["--nthreads", "2"], ())


def test_what_every_worker_gets_may_be_written_too() -> None:
    words = ["dask-worker", "--no-bokeh", "--no-dashboard", "--no-nanny", "--nworkers", "1", "--nprocs=1"]
    assert (parse({"args": words}).words, parse({"args": words}).problems) == ([], ())


def test_the_last_of_repeated_options_counts_as_in_dask() -> None:
    assert parse({"args": ["--nthreads", "2", "--nthreads=4"]}).words == ["--nthreads", "4"]


def test_values_that_kubernetes_replaces_are_kept() -> None:
    assert parse({"args": ["--nthreads", "$(CPUS)"]}).words == ["--nthreads", "$(CPUS)"]


@pytest.mark.parametrize("value", ["auto", "4GB", "4 GiB", "4e9", "0.5", "2147483648", "0", "512m"])
def test_each_form_of_a_memory_limit_is_kept(value: str) -> None:
    assert parse({"args": ["--memory-limit", value]}).words == ["--memory-limit", value]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--nworkers", "2"], "args[1]: --nworkers must be 1, got '2': a pod is one worker, and min_workers and"),
        (["--nprocs=auto"], "args[0]: --nprocs must be 1, got 'auto': a pod is one worker"),
        (["dask-worker", "--name", "mine"], "args[1]: --name: workers get their names from the run; remove it"),
        (["--worker-port", "9000"], "args[0]: --worker-port: addresses, ports and TLS of workers are set for them"),
        (["--host=10.0.0.1"], "args[0]: --host: addresses"),
        (["--scheduler-file", "/s.json"], "args[0]: --scheduler-file: addresses"),
        (["--tls-cert", "/c.pem"], "args[0]: --tls-cert: addresses"),
        (["--dashboard-address", ":8789"], "args[0]: --dashboard-address: workers serve no pages; remove it"),
        (["--dashboard"], "args[0]: --dashboard: workers serve no pages"),
        (["--bokeh"], "args[0]: --bokeh: workers serve no pages"),
        (["--nanny"], "args[0]: --nanny: a worker is the only process of its container"),
        (["--preload-nanny", "x"], "args[0]: --preload-nanny: a worker is the only process"),
        (["--help"], "args[0]: --help: it starts no worker"),
        (["--no-reconnect"], "args[0]: --no-reconnect: Dask has no such option any more"),
        (["--ntreads", "2"], "args[0]: unknown option '--ntreads'; did you mean --nthreads?"),
        (["--nthreads"], "args[0]: --nthreads needs a value"),
        (["--nthreads", "--no-nanny"], "args[0]: --nthreads needs a value"),
        (["--nthreads", "0"], "args[1]: --nthreads must be a number of threads, 1 or more, got '0'"),
        (["--memory-limit", "much"], "args[1]: --memory-limit must be an amount of memory like 4GB or 4GiB, or auto"),
        (["--death-timeout", "0"], "args[1]: --death-timeout must be a time like 60 or 2min, more than 0, got '0'"),
        (["--resources", "GPU"], "args[1]: --resources must be resources like 'GPU=1 MEM=2e9', got 'GPU'"),
        (["tcp://a:1", "tcp://b:1"], "args[1]: unknown argument 'tcp://b:1'"),
        (["sh", "-c", "dask-worker --nthreads 2"], "args[0]: a command line for a shell (sh) can't be read; write"),
        (["/bin/bash", "-c", "dask worker"], "args[0]: a command line for a shell (bash) can't be read"),
        (["tini", "--", "dask-worker"], "args[0]: can't start 'tini'; it must be dask-worker, 'dask worker' or left"),
        (["dask", "scheduler"], "args[0]: can't start 'dask'"),
        (["dask-cuda-worker"], "args[0]: can't start 'dask-cuda-worker'"),
        (["python", "-m", "mine"], "args[0]: can't start 'python'"),
    ],
)
def test_what_cannot_be_kept_is_named_with_its_path(words: list[str], problem: str) -> None:
    [message] = parse({"args": words}).problems
    assert message.startswith(problem)


def test_a_refused_option_takes_its_value_along() -> None:
    options = parse({"command": ["dask-worker", "--name", "mine", "--nthreads", "2"]})
    assert options.words == ["--nthreads", "2"]
    assert [problem.partition(":")[0] for problem in options.problems] == ["command[1]"]


def test_each_problem_is_named() -> None:
    assert len(parse({"args": ["--nanny", "--nthreads", "x", "--unknown"]}).problems) == 3


def test_every_option_of_the_installed_dask_is_known() -> None:
    """An option of a newer release is to be judged, not only called unknown."""
    names = [name for option in _command().params for name in (*option.opts, *option.secondary_opts)]
    unknown = [name for name in names if name.startswith("-") and "unknown" in str(parse({"args": [name]}).problems)]
    assert len(names) > 20
    assert unknown == []


def test_dask_reads_the_command_of_a_worker() -> None:
    command = worker_of(build())["spec"]["containers"][0]["command"]
    words = [word for word in command if word not in {"--preload", PRELOAD}]  # which would be imported here
    words = words[words.index("distributed.cli.dask_worker") + 1 :]
    context = _command().make_context("dask worker", words)
    assert (context.params["name"], context.params["nthreads"], context.params["nanny"]) == ("w1", 1, False)
    assert (context.params["memory_limit"], context.params["dashboard"]) == (str(2**30), False)
    assert (context.params["scheduler"], context.params["preload_argv"]) == (None, ())


def _command() -> Any:
    from distributed.cli.dask_worker import main

    return main

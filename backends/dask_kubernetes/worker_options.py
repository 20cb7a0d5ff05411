"""Options of ``dask worker`` in the command and arguments of a container: which are kept, and why others aren't.

A user's Pod may start a worker by ``dask-worker``, ``dask worker``, ``python -m distributed.cli.dask_worker`` or name
its options alone. The program, the scheduler's address, the worker's name, its addresses and TLS are set for every
worker. Pure; called by :mod:`backends.dask_kubernetes.worker_spec`.
"""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dispatcher.support.escaping import shown

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh"})
_PYTHON = re.compile(r"python(3(\.[0-9]+)?)?")
_MODULES = (("distributed.cli.dask_worker",), ("dask", "worker"))
_PROGRAMS = (("dask-worker",), ("dask", "worker"))
_ADDRESS = re.compile(r"\$\(.*|[^\s-].*:.*")

_OWN_ADDRESS = "addresses, ports and TLS of workers are set for them; remove it"
_OWN_NAME = "workers get their names from the run; remove it"
_NO_PAGES = "workers serve no pages; remove it"
_NO_NANNY = "a worker is the only process of its container, and a new pod replaces it; remove it"
_NO_WORKER = "it starts no worker; remove it"
_REMOVED = "Dask has no such option any more; remove it"

#: Why an option can't be kept, and whether it has a value.
_REFUSED: Mapping[str, tuple[str, bool]] = {
    **dict.fromkeys(
        (
            "--host", "--interface", "--protocol", "--listen-address", "--contact-address", "--worker-port",
            "--nanny-port", "--scheduler-file", "--scheduler-sni", "--tls-ca-file", "--tls-cert", "--tls-key",
        ),
        (_OWN_ADDRESS, True),
    ),
    "--name": (_OWN_NAME, True),
    **dict.fromkeys(("--dashboard", "--bokeh"), (_NO_PAGES, False)),
    **dict.fromkeys(
        ("--dashboard-address", "--dashboard-prefix", "--bokeh-port", "--bokeh-prefix"), (_NO_PAGES, True)
    ),
    **dict.fromkeys(("--nanny", "--lifetime-restart"), (_NO_NANNY, False)),
    "--preload-nanny": (_NO_NANNY, True),
    **dict.fromkeys(("--version", "--help", "-h"), (_NO_WORKER, False)),
    **dict.fromkeys(("--reconnect", "--no-reconnect"), (_REMOVED, False)),
}  # fmt: skip

#: Flags that every worker gets, or that say what is so anyway.
_IMPLIED = frozenset({"--no-dashboard", "--no-bokeh", "--no-nanny", "--no-lifetime-restart"})

#: How many workers a container starts.
_COUNTS = ("--nworkers", "--nprocs")

_AMOUNT = r"[0-9]+(\.[0-9]*)?(e[0-9]+)?"
_DURATION = (re.compile(rf"(?=.*[1-9]){_AMOUNT} *[a-z]*", re.IGNORECASE), "a time like 60 or 2min, more than 0")
_ANY = (re.compile(r".+", re.DOTALL), "a text")

#: Options that are kept: the pattern of their values, with its description.
_KEPT: Mapping[str, tuple[re.Pattern[str], str]] = {
    "--nthreads": (re.compile(r"[1-9][0-9]{0,3}"), "a number of threads, 1 or more"),
    "--memory-limit": (
        re.compile(rf"auto|{_AMOUNT} *([kmgtp]i?)?b?", re.IGNORECASE), "an amount of memory like 4GB or 4GiB, or auto",
    ),
    "--resources": (re.compile(r"[^=\s,]+=[0-9.e+-]+([ ,]+[^=\s,]+=[0-9.e+-]+)*"), "resources like 'GPU=1 MEM=2e9'"),
    "--death-timeout": _DURATION,
    "--lifetime": _DURATION,
    "--lifetime-stagger": _DURATION,
    "--local-directory": _ANY,
    "--pid-file": _ANY,
    "--preload": _ANY,
    "--worker-class": _ANY,
}  # fmt: skip

_OPTIONS = (*_KEPT, *_COUNTS, *_IMPLIED, *_REFUSED)


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word of a container's command or arguments, with its path in the container."""

    path: str
    text: str


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """Options of ``dask worker`` from the command and arguments of a container.

    Attributes:
        options: those that are kept, with their values, in their order.
        problems: each with its path in the container; empty if all is well.
    """

    options: tuple[tuple[str, str], ...]
    problems: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """The options as words of a command."""
        return [word for option in self.options for word in option]

    def names(self) -> frozenset[str]:
        """Return the names of the options."""
        return frozenset(name for name, _ in self.options)


def parse(container: Mapping[str, Any]) -> WorkerOptions:
    """Return the options in a container's command and arguments.

    Args:
        container: of a Pod, whose types are right.
    """
    words = [
        Word(path=f"{field}[{index}]", text=text)
        for field in ("command", "args")
        for index, text in enumerate(container.get(field) or ())
    ]
    begin, problem = _program(words)
    if problem:
        return WorkerOptions(options=(), problems=(problem,))
    reader = _Reader(words[begin:])
    reader.read()
    return WorkerOptions(options=tuple(reader.options), problems=tuple(reader.problems))


def _program(words: Sequence[Word]) -> tuple[int, str]:
    """Return where the options begin, and what is wrong with the program before them; empty if nothing is."""
    if not words or words[0].text.startswith("-") or _ADDRESS.fullmatch(words[0].text):
        return 0, ""
    texts = [word.text for word in words]
    name = posixpath.basename(texts[0])
    if _PYTHON.fullmatch(name):
        begin = next((index for index, text in enumerate(texts) if text == "-m"), len(texts)) + 1
        for module in _MODULES:
            if tuple(texts[begin : begin + len(module)]) == module:
                return begin + len(module), ""
    for program in _PROGRAMS:
        if (name, *texts[1 : len(program)]) == program:
            return len(program), ""
    if name in _SHELLS:
        remedy = "write dask worker's options as a list: args: [dask, worker, --nthreads, '2']"
        return 0, f"{words[0].path}: a command line for a shell ({name}) can't be read; {remedy}"
    remedy = "it must be dask-worker, 'dask worker' or left out: the worker's program is set"
    return 0, f"{words[0].path}: can't start {shown(texts[0])}; {remedy}"


class _Reader:
    """Reads the words after the program, as ``dask worker`` does."""

    def __init__(self, words: Sequence[Word]) -> None:
        self.options: list[tuple[str, str]] = []
        self.problems: list[str] = []
        self._rest: Iterator[Word] = iter(words)
        self._addresses = 0

    def read(self) -> None:
        for word in self._rest:
            name, equals, value = word.text.partition("=")
            if not word.text.startswith("-"):
                self._address(word)
            elif name in _IMPLIED:
                pass
            elif name in _KEPT:
                self._with_value(word, name, value if equals else None, self._keep)
            elif name in _COUNTS:
                self._with_value(word, name, value if equals else None, self._count)
            elif name in _REFUSED:
                self._refuse(word, name, has_value=not equals)
            else:
                similar = difflib.get_close_matches(name, _OPTIONS, n=1)
                hint = f"; did you mean {similar[0]}?" if similar else ""
                self._problem(word, f"unknown option {shown(name)}{hint}")

    def _with_value(self, word: Word, name: str, value: str | None, use: Callable[[Word, str, str], None]) -> None:
        if value is None:
            following = next(self._rest, None)
            if following is None or following.text.startswith("--"):
                self._problem(word, f"{name} needs a value")
                return
            word, value = following, following.text
        use(word, name, value)

    def _keep(self, word: Word, name: str, value: str) -> None:
        pattern, description = _KEPT[name]
        if "$(" not in value and not pattern.fullmatch(value):  # $(VARIABLE) is replaced by Kubernetes
            self._problem(word, f"{name} must be {description}, got {shown(value)}")
            return
        if name != "--preload":  # the only one that may be given repeatedly
            self.options = [option for option in self.options if option[0] != name]
        self.options.append((name, value))

    def _count(self, word: Word, name: str, value: str) -> None:
        if value != "1":
            remedy = "min_workers and max_workers say how many pods there are"
            self._problem(word, f"{name} must be 1, got {shown(value)}: a pod is one worker, and {remedy}")

    def _refuse(self, word: Word, name: str, *, has_value: bool) -> None:
        reason, takes_value = _REFUSED[name]
        self._problem(word, f"{name}: {reason}")
        if has_value and takes_value:
            next(self._rest, None)

    def _address(self, word: Word) -> None:
        """Drop the scheduler's address: every worker is given the one of its run."""
        self._addresses += 1
        if self._addresses > 1:
            self._problem(word, f"unknown argument {shown(word.text)}")

    def _problem(self, word: Word, text: str) -> None:
        self.problems.append(f"{word.path}: {text}")

"""Rows of the zoo: module state, locks and connections, handles, loggers, context variables; what is refused."""

from __future__ import annotations

from tests.integration.zoo.specimen import Specimen


def _refused(kind: str, name: str) -> dict[str, str]:
    """Messages for an object that can't travel: each names the user's object first."""
    sent = f"_{name}' can't be sent: "
    return {
        "parameter": rf"^InvalidParameters: parameters of flow 'parameter{sent}it holds parameter 'x'.*{kind}",
        "result": rf"the result of flow 'result{sent}.*{kind}",
        "closure": rf"^InvalidFlow: flow 'closure{sent}it uses variable 'x' of the function around it.*{kind}",
    }


def _refused_global(kind: str, name: str) -> dict[str, str]:
    message = rf"^InvalidFlow: flow '{{way}}_{name}' can't be sent: it uses global 'VALUE_{name}'.*{kind}"
    return {way: message.format(way=way) for way in ("global", "result")}


STATE = (
    Specimen(
        "lock",
        """
        VALUE = threading.Lock()
        def check(x):
            with x: return x.locked()
        """,
        refused=_refused("lock", "lock"),
        by_value_refused=_refused_global("lock", "lock"),
    ),
    Specimen(
        "untouched_lock_and_connection",
        """
        import socket, sqlite3
        untouched_lock = threading.RLock()
        untouched_connection = sqlite3.connect(":memory:")
        untouched_pool = concurrent.futures.ThreadPoolExecutor(1)
        def uses_them():
            with untouched_lock: return untouched_connection, untouched_pool
        class Touching:
            touched = 3
        VALUE = Touching()
        def check(x): return x.touched
        """,
    ),
    Specimen(
        "open_file",
        """
        VALUE = open(os.devnull, "w")
        def check(x): return x.write("x")
        """,
        refused=_refused("FileIO", "open_file"),
        by_value_refused=_refused_global("FileIO", "open_file"),
    ),
    Specimen(
        "generator",
        """
        VALUE = (i for i in range(3))
        EXPECTED = True
        def check(x): return list(x) in ([0, 1, 2], [])
        """,
        refused=_refused("generator", "generator"),
        by_value_refused=_refused_global("generator", "generator"),
    ),
    Specimen(
        "event_and_queue",
        """
        VALUE = {"event": threading.Event(), "queue": queue.Queue()}
        def check(x): return x["event"].is_set(), x["queue"].qsize()
        """,
        refused=_refused("Event", "event_and_queue"),
        by_value_refused=_refused_global("Event", "event_and_queue"),
    ),
    Specimen(
        "thread_local",
        """
        VALUE = threading.local()
        def check(x): x.n = 1; return x.n
        """,
        refused=_refused("local", "thread_local"),
        by_value_refused=_refused_global("local", "thread_local"),
    ),
    Specimen(
        "weak_reference",
        """
        class Referred: pass
        referred = Referred()
        VALUE = weakref.ref(referred)
        EXPECTED = True
        def check(x): return x() is not None
        """,
        refused=_refused("(weakref|ReferenceType)", "weak_reference"),
        by_value_refused=_refused_global("(weakref|ReferenceType)", "weak_reference"),
    ),
    Specimen(
        "asyncio_primitives",
        """
        VALUE = asyncio.Semaphore(2)
        def check(x):
            async def main():
                async with x: return x._value
            return asyncio.run(main())
        """,
    ),
    Specimen(
        "context_variable",
        """
        variable = contextvars.ContextVar("variable", default=3)
        bare = contextvars.ContextVar("bare")
        VALUE = (variable, bare)
        def check(x):
            token = x[0].set(4)
            inside = x[0].get()
            x[0].reset(token)
            return inside, x[0].get(), x[1].get("none"), x[0] is variable
        """,
    ),
    Specimen(
        "loggers",
        """
        log = logging.getLogger(__name__)
        adapter = logging.LoggerAdapter(log, {"k": 1})
        VALUE = (logging.getLogger("my.app"), adapter, log)
        def check(x):
            for logger in x: logger.info("hello")
            return x[0] is logging.getLogger("my.app"), x[0].name, x[1].extra
        """,
    ),
    Specimen(
        "plain_containers",
        """
        VALUE = (
            collections.defaultdict(lambda: 7), zoneinfo.ZoneInfo("UTC"), types.SimpleNamespace(a=1),
            struct.Struct("<I"), collections.OrderedDict(a=1), collections.deque([1], maxlen=2), string.Template("$a"),
            pathlib.PurePosixPath("/a/b"), datetime.timezone.utc,
        )
        def check(x):
            moment = datetime.datetime(2026, 1, 1, tzinfo=x[1])
            return (
                x[0]["q"], moment.isoformat(), x[2].a, x[3].size, list(x[4]), x[5].maxlen, x[6].substitute(a=1),
                x[7].name, str(x[8]),
            )
        """,
    ),
    Specimen(
        "mapping_proxy",
        """
        VALUE = types.MappingProxyType({"a": 1})
        def check(x): return x["a"]
        """,
    ),
    Specimen(
        "streams",
        """
        VALUE = sys.stdout
        def check(x): return x.write("to stdout\\n") and 1
        """,
        ways=("global",),
    ),
    Specimen(
        "own_flow",
        """
        @flow
        def inner_flow(x): return x + 1
        @task
        def inner_task(x): return x + 2
        VALUE = (inner_flow, inner_task)
        def check(x): return x[0].name, x[0](1), x[1](1), x[1].name
        """,
    ),
    Specimen(
        "module_object",
        """
        import os.path as paths
        import concurrent.futures as futures
        VALUE = (paths, futures)
        def check(x): return x[0].basename("a/b"), x[1].__name__
        """,
    ),
    Specimen(
        "module_state",
        """
        calls = {"n": 0}
        def bump(): calls["n"] += 1; return calls["n"]
        VALUE = bump
        EXPECTED = True
        def check(x):
            before = x()  # it has its own module's state
            return x() == before + 1
        """,
    ),
    Specimen(
        "global_statement",
        """
        setting = 1
        def reset(value):
            global setting
            setting = value
            return setting
        def read_setting(): return setting
        VALUE = (reset, read_setting)
        EXPECTED = [5, 5]
        def check(x): return [x[0](5), x[1]()]
        """,
    ),
    Specimen(
        "main_module",
        """
        class InMain: pass
        def holds(module, name): return hasattr(sys.modules[module], name)
        VALUE = (InMain.__module__, __name__)
        def check(x): return holds(InMain.__module__, "InMain"), x[0] == InMain.__module__, x[0] == x[1]
        """,
    ),
    Specimen(
        "own_pickles",
        """
        class Picklable:
            def __init__(self, n): self.n = n
            def __eq__(self, other): return self.n == other.n
        class PicklableKind(enum.Enum):
            A = 1
        VALUE = Picklable(3)
        def check(x):
            import copy
            again = pickle.loads(pickle.dumps([x, PicklableKind.A, kept_function]))
            return again[0] == x, again[1] is PicklableKind.A, again[2] is kept_function, copy.deepcopy(x) == x
        def kept_function(): pass
        """,
        not_on_dask="a task by value has functions of its own beside those of __main__",
    ),
    Specimen(
        "type_hints",
        """
        class Hinted:
            other: "Hinting"
        class Hinting:
            number: int
        VALUE = Hinted
        def check(x): return typing.get_type_hints(x)["other"] is Hinting
        """,
    ),
)

"""Rows of the zoo: modules and packages beside the flow's, imports in every place, data files, process pools."""

from __future__ import annotations

from tests.integration.zoo.specimen import BY_NAME, IN_PACKAGE, WITH_FILE, Specimen

_POOLED = """
def work_{kind}(n): return n * n
class Worked_{kind}:
    def __init__(self, n): self.n = n
def make_{kind}(n): return Worked_{kind}(n)
VALUE = 3
EXPECTED = [[0, 1, 4], [True, True], True]
def check(x):
    {opened}
        squares = list(pool.map(work_{kind}, range(x)))
        made = list(pool.map(make_{kind}, range(2)))
    return [squares, [type(one) is Worked_{kind} for one in made], made[1].n == 1]
"""

_POOLS = {
    "executor_fork": 'with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:',
    "executor_spawn": 'with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:',
    "pool_fork": 'with multiprocessing.get_context("fork").Pool(2) as pool:',
    "pool_spawn": 'with multiprocessing.get_context("spawn").Pool(1) as pool:',
    "pool_forkserver": 'with multiprocessing.get_context("forkserver").Pool(1) as pool:',
}

#: A pool starts processes, so of the ways only one is tried.
_WAYS = ("global",)

#: What reads files can't be tried in the program, whose project has moved away.
_NOT_BACK = ("global", "parameter", "closure")

LAYOUTS = (
    Specimen(
        "cycle",
        """
        import cycle_a, cycle_b
        VALUE = cycle_b.B()
        def check(x): return cycle_a.fa(5), type(x.make()) is cycle_a.A
        """,
        files={
            "cycle_a.py": "import cycle_b\ndef fa(n): return 0 if n <= 0 else cycle_b.fb(n - 1) + 1\nclass A: pass\n",
            "cycle_b.py": "import cycle_a\ndef fb(n): return 0 if n <= 0 else cycle_a.fa(n - 1) + 1\n"
            "class B:\n    def make(self): return cycle_a.A()\n",
        },
    ),
    Specimen(
        "package_imports_itself",
        """
        import selfish, selfish.core
        VALUE = selfish.run
        def check(x): return x(2), selfish.core.run2(2), selfish.core.run3(2), selfish.VERSION
        """,
        files={
            "selfish/__init__.py": "from .core import run\nfrom . import sub\nVERSION = '1'\n",
            "selfish/core.py": """
from .sub.deep import deep
import selfish
def run(n):
    from .sub import lazy
    return deep(n), lazy.Z, selfish.VERSION
def run2(n):
    from . import sub
    return sub.deep.deep(n)
def run3(n):
    import selfish.sub.deep
    return selfish.sub.deep.deep(n)
""",
            "selfish/sub/__init__.py": "",
            "selfish/sub/lazy.py": "Z = 5\n",
            "selfish/sub/deep.py": "def deep(n): return n * 100\n",
        },
    ),
    Specimen(
        "import_in_function",
        """
        import late_helper
        VALUE = late_helper.late
        def check(x):
            import late_other
            from late_package import part
            return x(), late_other.X, part.Y, late_helper.by_name()
        """,
        files={
            "late_helper.py": "import importlib\n"
            "def late():\n    import late_second\n    return late_second.X\n"
            "def by_name():\n    return importlib.import_module('late_third').X\n",
            "late_second.py": "X = 17\n",
            "late_third.py": "X = 19\n",
            "late_other.py": "from late_fourth import *\n",
            "late_fourth.py": "__all__ = ['X']\nX = 18\nY = 0\n",
            "late_package/__init__.py": "",
            "late_package/part.py": "Y = 20\n",
        },
    ),
    Specimen(
        "relative_in_function",
        """
        from . import near
        from .near import Near
        VALUE = Near(3)
        def check(x):
            from . import later
            from .deeper.inner import inner
            return x.n, later.X, inner(), near.up()
        """,
        standings=IN_PACKAGE,
        beside={
            "near.py": "class Near:\n    def __init__(self, n): self.n = n\n"
            "def up():\n    from .deeper import inner\n    return inner.inner()\n",
            "later.py": "X = 21\n",
            "deeper/__init__.py": "",
            "deeper/inner.py": "from .. import later\ndef inner(): return later.X + 1\n",
        },
    ),
    Specimen(
        "conditional_imports",
        """
        import conditional
        VALUE = conditional.run
        def check(x): return x(), conditional.fast is None
        """,
        files={
            "conditional.py": """
try:
    import conditional_fast as fast
except ImportError:
    fast = None
if True:
    import conditional_first as chosen
else:
    import conditional_second as chosen
class Holder:
    import conditional_third as third
def run(): return chosen.X, Holder.third.X, (lambda: __import__("conditional_fourth").X)()
""",
            "conditional_first.py": "X = 1\n",
            "conditional_third.py": "X = 3\n",
            "conditional_fourth.py": "X = 4\n",
        },
    ),
    Specimen(
        "lazy_package_attributes",
        """
        import lazily
        VALUE = lazily
        def check(x): return x.thing(), sorted(x.__all__), x.other.Y
        """,
        files={
            "lazily/__init__.py": "__all__ = ['thing', 'other']\n"
            "def __getattr__(name):\n    import importlib\n"
            "    if name == 'thing':\n        from .inside import thing\n        return thing\n"
            "    if name == 'other':\n        return importlib.import_module('.other', __name__)\n"
            "    raise AttributeError(name)\n",
            "lazily/inside.py": "def thing(): return 'thing'\n",
            "lazily/other.py": "Y = 1\n",
        },
    ),
    Specimen(
        "namespace_package",
        """
        import spread.left.mod
        from spread.right import other
        VALUE = spread.left.mod.f
        def check(x): return x(), other.g()
        """,
        files={
            "spread/left/mod.py": "def f():\n    import spread.right.other\n    return spread.right.other.g() + 1\n",
            "spread/right/other.py": "def g(): return 1\n",
        },
    ),
    Specimen(
        "data_beside_module",
        """
        import with_data
        VALUE = with_data.read
        def check(x): return x(), with_data.PATH.name
        """,
        files={
            "with_data.py": "from pathlib import Path\nPATH = Path(__file__).parent / 'with_data.csv'\n"
            "def read(): return PATH.read_text()\n",
            "with_data.csv": "a,b\n",
        },
        ways=_NOT_BACK,
    ),
    Specimen(
        "data_in_package",
        """
        import importlib.resources
        import datapack.reads
        VALUE = datapack.reads.read
        def check(x):
            text = importlib.resources.files("datapack").joinpath("tables", "one.csv").read_text()
            with importlib.resources.as_file(importlib.resources.files(datapack) / "top.bin") as path:
                binary = path.read_bytes()
            import pkgutil
            return x(), text, list(binary), pkgutil.get_data("datapack", "top.bin") == binary
        """,
        files={
            "datapack/__init__.py": "",
            "datapack/reads.py": "from importlib import resources\n"
            "def read(): return resources.files(__package__).joinpath('tables/one.csv').read_text()\n",
            "datapack/tables/one.csv": "1;2\n",
            "datapack/top.bin": b"\x00\xff",
        },
        ways=_NOT_BACK,
    ),
    Specimen(
        "module_with_lock",
        """
        import locked
        VALUE = locked.Guarded(3)
        def check(x): return locked.safely(x.n), locked.cached(2), locked.show("a"), locked.log.name
        """,
        files={
            "locked.py": """
import functools, logging, sqlite3, threading
log = logging.getLogger(__name__)
LOCK = threading.Lock()
CONNECTION = sqlite3.connect(":memory:", check_same_thread=False)
GENERATOR = (i for i in range(3))
class Guarded:
    def __init__(self, n): self.n = n
    @functools.cached_property
    def size(self): return self.n
def safely(n):
    with LOCK: return CONNECTION.execute("select ?", (n,)).fetchone()[0]
@functools.lru_cache
def cached(n): return n + 1
@functools.singledispatch
def show(x): return "any"
@show.register
def _(x: str): return "str"
""",
        },
    ),
    Specimen(
        "star_import_and_reexport",
        """
        from reexports import *
        import reexports
        VALUE = Exported(2)
        def check(x): return exported(), type(x) is reexports.Exported, x.n, reexports.inner.hidden()
        """,
        files={
            "reexports/__init__.py": "from .inner import *\nfrom .inner import Exported as Exported\n",
            "reexports/inner.py": "__all__ = ['exported', 'Exported']\ndef exported(): return 'yes'\n"
            "def hidden(): return 'hidden'\nclass Exported:\n    def __init__(self, n): self.n = n\n",
        },
    ),
    Specimen(
        "source_of_functions",
        """
        import sourced
        VALUE = sourced.shown
        def check(x): return inspect.getsource(x)
        """,
        files={"sourced.py": "def shown():\n    return 'the source'\n"},
        ways=_NOT_BACK,
    ),
    Specimen(
        "pool_of_helper",
        """
        import pooled
        VALUE = 3
        EXPECTED = [[0, 1, 4], [0, 1, 4], True]
        def check(x):
            return [pooled.squares(x, "fork"), pooled.squares(x, "spawn"), pooled.kept() is not None]
        """,
        files={
            "pooled.py": "import multiprocessing, pooled_work\n"
            "def squares(n, method):\n    with multiprocessing.get_context(method).Pool(1) as pool:\n"
            "        return pool.map(pooled_work.work, range(n))\n"
            "def kept():\n    import pickle\n    return pickle.loads(pickle.dumps(pooled_work.Kept()))\n",
            "pooled_work.py": "def work(n): return n * n\nclass Kept: pass\n",
        },
        ways=_WAYS,
        pools=True,
    ),
    *(
        Specimen(kind, _POOLED.format(kind=kind, opened=opened), ways=_WAYS, pools=True)
        for kind, opened in _POOLS.items()
    ),
    Specimen(
        "threads",
        """
        import threaded
        VALUE = 3
        def check(x):
            with concurrent.futures.ThreadPoolExecutor(2) as pool: return list(pool.map(threaded.work, range(x)))
        """,
        files={
            "threaded.py": "def work(n):\n    import threaded_late\n    return threaded_late.X + n\n",
            "threaded_late.py": "X = 7\n",
        },
    ),
    Specimen(
        "data_beside_flow",
        """
        VALUE = "data_beside_flow.txt"
        def check(x):
            def inner(): return (pathlib.Path(__file__).parent / x).read_text()
            return (pathlib.Path(__file__).parent / x).read_text(), inner()
        """,
        beside={"data_beside_flow.txt": "beside the flow\n"},
        standings=WITH_FILE,
        ways=_NOT_BACK,
    ),
    Specimen(
        "data_at_import",
        """
        HERE = pathlib.Path(__file__).parent
        TEXT = (HERE / "data_at_import.txt").read_text()
        VALUE = "data_at_import.txt"
        def check(x): return (HERE / x).read_text(), TEXT
        """,
        beside={"data_at_import.txt": "beside the module\n"},
        standings=BY_NAME,  # a script's HERE travels as the path that it has there
        ways=_NOT_BACK,
    ),
)

"""Definitions of a script mean the same in another process: each row is computed here, and there by value."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import PYTHON

DEFINITIONS = """
import collections, contextvars, dataclasses, enum, functools, pickle, struct, types, typing

@functools.lru_cache
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
@functools.cache
def square(n): return n * n
small = functools.lru_cache(maxsize=8, typed=True)(lambda n: n + 1)
part = functools.partial(fib, 10)

@functools.singledispatch
def show(value): return "any"
@show.register
def _(value: int): return "int " + show("")
@show.register(str)
def _(value): return "str"
class Method:
    @functools.singledispatchmethod
    def of(self, value): return "any"
    @of.register
    def _(self, value: int): return "int"

class Lazy:
    calls = 0
    @functools.cached_property
    def size(self):
        "Its size."
        Lazy.calls += 1
        return 7

UserId = typing.NewType("UserId", int)
T = typing.TypeVar("T", bound=int); P = typing.ParamSpec("P"); Ts = typing.TypeVarTuple("Ts")
class Box(typing.Generic[T]): pass
variable = contextvars.ContextVar("variable", default=3)
bare = contextvars.ContextVar("bare")
number = struct.Struct("<I")

@dataclasses.dataclass
class Size:
    width: int
    height: int = 1
class Paper(Size, enum.Enum):
    A4 = 210, 297
    CARD = 85, 55
class Coord(bytes, enum.Enum):
    def __new__(cls, value, label):
        self = bytes.__new__(cls, [value]); self._value_ = value; self.label = label; return self
    X = 0, "x"
    Y = 1, "y"
class Planet(enum.Enum):
    EARTH = 5.9, 6.3
    def __init__(self, mass, radius): self.mass, self.radius = mass, radius
    @property
    def gravity(self): return round(self.mass / self.radius ** 2, 3)
class Status(int, enum.Enum):
    def __new__(cls, value, phrase=""):
        self = int.__new__(cls, value); self._value_ = value; self.phrase = phrase; return self
    OK = 200, "fine"
class Color(enum.StrEnum):
    RED = "r"; CRIMSON = "r"; BLUE = enum.auto()
class Perm(enum.Flag):
    NONE = 0; R = 1; W = 2; RW = 3
class Mask(enum.IntFlag, boundary=enum.KEEP):
    A = 1; B = 4
class Config(enum.Enum):
    ONE = {"a": [1]}
    TWO = {"a": [2]}
class Related(enum.Enum):
    LEFT = 1; RIGHT = 2
    @property
    def other(self): return Related.RIGHT if self is Related.LEFT else Related.LEFT
class Own(types.DynamicClassAttribute):
    pass
class WithOwn(enum.Enum):
    A = 5
    @Own
    def value(self): return "mine"
Point = collections.namedtuple("Point", "x y")
class Pair(typing.NamedTuple):
    left: int
    right: int = 2
class Slots:
    __slots__ = ("a", "__weakref__")
    def __init__(self): self.a = 1
class Meta(type):
    def __call__(cls, *args): return ("made", *args)
class Odd(metaclass=Meta): pass
class Slotted:
    __slots__ = ("shown", "__hidden")
    def __init__(self): self.shown, self.__hidden = 1, 2
    def hidden(self): return self.__hidden
class Plugin:
    registry = {}
    def __init_subclass__(cls, /, key, **more): super().__init_subclass__(**more); cls.registry[key] = cls.__name__
class Csv(Plugin, key="csv"): pass
class Registering(type):
    known = []
    def __new__(mcls, *args): mcls.known.append(args[0]); return super().__new__(mcls, *args)
class Registered(metaclass=Registering): pass
"""

ROWS = {
    "slots of a class": "(Slotted().shown, Slotted().hidden(), hasattr(Slotted(), '__dict__'))",
    "a hook of subclasses": "(Plugin.registry, Csv.__mro__[1] is Plugin)",
    "a metaclass that registers": "(Registering.known, type(Registered) is Registering)",
    "lru_cache": "(fib(30), fib.cache_info().hits > 0, fib.cache_parameters()['maxsize'])",
    "cache starts empty": "(square(3), square(3), square.cache_info().hits)",
    "lru_cache of a lambda": "(small(1), small(1.0), small.cache_info().misses)",
    "partial of a cache": "part()",
    "singledispatch": "(show(1), show('a'), show(2.0), sorted(kind.__name__ for kind in show.registry))",
    "singledispatchmethod": "(Method().of(1), Method().of('a'))",
    "cached_property": "(lambda lazy: (lazy.size, lazy.size, Lazy.calls, Lazy.size.__doc__))(Lazy())",
    "NewType": "(UserId(3), UserId.__name__, UserId.__supertype__ is int)",
    "type parameters": "(repr(T), repr(P), repr(Ts), T.__bound__ is int, Box[int].__args__)",
    "context variable": "(variable.get(), bare.get('none'), variable.name)",
    "struct": "number.pack(7)",
    "dataclass mixin": "(Paper.A4.width, Paper['CARD'].height, [paper.name for paper in Paper])",
    "bytes mixin": "(Coord.Y.label, Coord.Y.value, bytes(Coord.Y), Coord(1) is Coord.Y)",
    "attributes": "(Planet.EARTH.mass, Planet.EARTH.gravity, Planet((5.9, 6.3)) is Planet.EARTH)",
    "int mixin": "(Status.OK.phrase, Status.OK + 1, Status(200) is Status.OK)",
    "aliases": "(Color.CRIMSON is Color.RED, list(Color.__members__), Color('blue').name, str(Color.RED))",
    "zero and composite flags": "(Perm.NONE.value, Perm.RW.name, (Perm.R | Perm.W) is Perm.RW, Perm(3) is Perm.RW)",
    "flags in order": "[p.name for p in Perm]",
    "a flag that keeps": "(int(Mask.A | 32), Mask(5) == Mask.A | Mask.B, (~Mask.A) & Mask.B == Mask.B)",
    "unhashable values": "(Config({'a': [2]}) is Config.TWO, Config.ONE.value)",
    "members that name each other": "(Related.LEFT.other is Related.RIGHT, len(Related))",
    "a descriptor of its own": "(WithOwn.A.value, WithOwn.A._value_)",
    "named tuples": "(Point(1, 2).y, Pair(1).right, Pair(1)._asdict())",
    "slots": "Slots().a",
    "a metaclass": "Odd(1)",
}

OUTER = """
import json, sys
from dispatcher.serialization import pack
ROWS = json.loads({rows!r})
made = {{name: eval("lambda: " + row) for name, row in ROWS.items()}}
sealed = {{name: pack(function, subject=name).hex() for name, function in made.items()}}
print(json.dumps({{name: [repr(function()), sealed[name]] for name, function in made.items()}}))
"""

INNER = """
import json, sys
from dispatcher.serialization import unpack
answers = {}
for name, sealed in json.load(sys.stdin).items():
    try:
        answers[name] = repr(unpack(bytes.fromhex(sealed))())
    except Exception as error:
        answers[name] = f"{type(error).__name__}: {error}"
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """The results of each row in the script, and in another process."""
    script = tmp_path_factory.mktemp("zoo") / "script.py"
    script.write_text(DEFINITIONS + OUTER.format(rows=json.dumps(ROWS)))
    here = json.loads(_run(script))
    there = json.loads(_run("-c", INNER, given=json.dumps({name: sealed for name, (_, sealed) in here.items()})))
    return {name: (value, there[name]) for name, (value, _) in here.items()}


def _run(*arguments: str | Path, given: str = "") -> str:
    done = subprocess.run([PYTHON, *arguments], input=given, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ROWS)
def test_it_means_the_same_in_another_process(answers: dict[str, tuple[str, str]], name: str) -> None:
    here, there = answers[name]
    assert there == here


SINGLETON = """
from dispatcher.errors import InvalidInput
from dispatcher.serialization import pack
class Missing:
    def __reduce__(self): return "MISSING"
MISSING = Missing()
def flow(): return MISSING
try:
    pack(flow, subject="flow 'f'")
except InvalidInput as error:
    print(error)
"""


def test_what_is_known_only_by_its_name_is_refused_at_submit(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SINGLETON)
    words = _run(tmp_path / "script.py")
    assert "it uses global 'MISSING'" in words
    assert "define it in a module" in words


SENT = "from dispatcher.serialization import pack\nclass Sent: size = {size}\nprint(pack(Sent(), subject='x').hex())"

OPENED = """
import json, sys
from dispatcher.runner.process_state.aspects import reset_libraries
from dispatcher.serialization import unpack
from dispatcher.serialization.class_loading import classes_of_main
kept, outcomes = [], []
for sealed in json.load(sys.stdin):
    kept.append(unpack(bytes.fromhex(sealed)))
    outcomes.append([kept[-1].size, classes_of_main()["Sent"] is type(kept[-1])])
    reset_libraries()
print(json.dumps(outcomes))
"""


def test_each_run_finds_its_own_classes_though_earlier_ones_are_in_use() -> None:
    first, second = (_run("-c", SENT.format(size=size)).strip() for size in (1, 2))
    outcomes = json.loads(_run("-c", OPENED, given=json.dumps([first, second, first])))
    assert outcomes == [[1, True], [2, True], [1, True]]

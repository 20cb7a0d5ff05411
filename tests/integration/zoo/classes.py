"""Rows of the zoo: classes and their objects, names of typing, descriptors, exceptions."""

from __future__ import annotations

from tests.integration.zoo.specimen import Specimen

CLASSES = (
    Specimen(
        "new_type",
        """
        UserId = typing.NewType("UserId", int)
        VALUE = UserId
        def check(x): return x(3), x.__supertype__ is int, x.__name__, x is UserId
        """,
    ),
    Specimen(
        "type_variables",
        """
        T_bound = typing.TypeVar("T_bound", bound=int)
        T_plain = typing.TypeVar("T_plain")
        Params = typing.ParamSpec("Params")
        Many = typing.TypeVarTuple("Many")
        def identity_of(x: T_plain) -> T_plain: return typing.cast(T_plain, x)
        VALUE = (T_bound, Params, Many, T_plain)
        def check(x):
            return [item.__name__ for item in x], x[0].__bound__ is int, x[3] is T_plain, x[1] is Params, identity_of(4)
        """,
    ),
    Specimen(
        "generic_class",
        """
        Item = typing.TypeVar("Item")
        class Box(typing.Generic[Item]):
            def __init__(self, item: Item): self.item = item
        class IntBox(Box[int]): pass
        VALUE = (Box[str]("a"), IntBox(3), Box[int])
        def check(x):
            generic = IntBox.__orig_bases__ == (Box[int],), Box.__parameters__ == (Item,)
            return x[0].item, x[1].item, x[2](4).item, generic
        """,
    ),
    Specimen(
        "protocol",
        """
        @typing.runtime_checkable
        class Quacks(typing.Protocol):
            def quack(self) -> str: ...
        class Duck:
            def quack(self): return "quack"
        VALUE = Duck()
        def check(x): return isinstance(x, Quacks), isinstance(3, Quacks), x.quack()
        """,
    ),
    Specimen(
        "named_tuple",
        """
        class Point(typing.NamedTuple):
            x: int
            y: int = 2
            def total(self): return self.x + self.y
        Old = collections.namedtuple("Old", "a b", defaults=[5])
        VALUE = (Point(1), Old(1))
        def check(x): return x[0].total(), x[0]._asdict(), x[1].b, type(x[0]) is Point, type(x[1]) is Old, Old(7).b
        """,
    ),
    Specimen(
        "typed_dict",
        """
        class Row(typing.TypedDict, total=False):
            name: typing.Required[str]
            size: int
        VALUE = Row
        def check(x): return x(name="n"), sorted(x.__required_keys__), x is Row, sorted(x.__annotations__)
        """,
    ),
    Specimen(
        "dataclasses",
        """
        @dataclasses.dataclass(order=True)
        class Base:
            name: str
            tags: list = dataclasses.field(default_factory=list)
            kind: typing.ClassVar[str] = "base"
        class Greets:
            def greet(self): return "hello " + self.name
        @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
        class Slotted:
            a: int
            b: dataclasses.InitVar[int] = 3
            c: int = dataclasses.field(init=False, default=4)
        @dataclasses.dataclass(order=True)
        class Derived(Base, Greets):
            size: int = 0
            @property
            def double(self): return self.size * 2
        VALUE = (Derived("n", ["t"], 4), Slotted(a=1))
        def check(x):
            derived, slotted = x
            fields = [field.name for field in dataclasses.fields(derived)]
            return (
                derived.greet(), derived.double, fields, dataclasses.replace(derived, size=5).size,
                derived < Derived("o"),
                slotted == Slotted(a=1), dataclasses.asdict(slotted), derived == Derived("n", ["t"], 4), derived.kind,
            )
        """,
    ),
    Specimen(
        "abstract",
        """
        class Shape(abc.ABC):
            @abc.abstractmethod
            def area(self): ...
            @property
            @abc.abstractmethod
            def title(self): ...
        class Square(Shape):
            def area(self): return 4
            title = "square"
        @Shape.register
        class Virtual: pass
        VALUE = Square()
        def check(x):
            try: Shape()
            except TypeError: abstract = True
            else: abstract = False
            return abstract, x.area(), x.title, isinstance(x, Shape), issubclass(Virtual, Shape)
        """,
    ),
    Specimen(
        "metaclass",
        """
        class Registering(type):
            known = []
            def __new__(mcls, name, bases, body, **options):
                cls = super().__new__(mcls, name, bases, body)
                cls.options = options
                mcls.known.append(name)
                return cls
            def __init__(cls, name, bases, body, **options): super().__init__(name, bases, body)
            def __len__(cls): return len(cls.options)
            @property
            def title(cls): return cls.__name__.upper()
        class Registered(metaclass=Registering, a=1, b=2): pass
        VALUE = Registered()
        def check(x): return type(type(x)) is Registering, len(type(x)), Registered.title, Registering.known
        """,
        not_on_dask="a task by value has classes of its own, registered with the metaclass that both share",
    ),
    Specimen(
        "init_subclass",
        """
        class Plugin:
            registry = {}
            def __init_subclass__(cls, /, key, **more):
                super().__init_subclass__(**more)
                cls.registry[key] = cls
        class Csv(Plugin, key="csv"): extension = ".csv"
        VALUE = Csv
        def check(x): return list(Plugin.registry), Plugin.registry["csv"] is x, x.extension
        """,
    ),
    Specimen(
        "descriptors",
        """
        class Positive:
            def __set_name__(self, owner, name): self.name = "_" + name
            def __get__(self, obj, owner=None): return self if obj is None else getattr(obj, self.name)
            def __set__(self, obj, value):
                if value <= 0: raise ValueError(self.name)
                setattr(obj, self.name, value)
        class own_property(property):
            def __init__(self, function): self.function = function
            def __get__(self, obj, owner=None): return self if obj is None else ("mine", self.function(obj))
        class LazyAttribute:
            def __init__(self, function): self.function = function
            def __set_name__(self, owner, name): self.name = name
            def __get__(self, obj, owner=None):
                if obj is None: return self
                obj.__dict__[self.name] = value = self.function(obj)
                return value
        class Described:
            size = Positive()
            def __init__(self, size): self.size = size
            @own_property
            def x(self): return 5
            @LazyAttribute
            def y(self): return 6
            @property
            def z(self): "Docs."; return self._z
            @z.setter
            def z(self, value): self._z = value
        VALUE = Described(3)
        def check(x):
            try: x.size = 0
            except ValueError as error: refused = str(error)
            x.z = 7
            return x.size, refused, x.x, x.y, x.z, Described.z.__doc__
        """,
    ),
    Specimen(
        "slots_and_dunders",
        """
        @functools.total_ordering
        class Version:
            __slots__ = ("parts", "__weakref__")
            def __init__(self, *parts): self.parts = parts
            def __eq__(self, other): return self.parts == other.parts
            def __lt__(self, other): return self.parts < other.parts
            def __hash__(self): return hash(self.parts)
            def __class_getitem__(cls, item): return item
            def __call__(self): return "called"
        class Child(Version):
            __slots__ = ("more",)
        VALUE = Version(1, 2)
        def check(x): return x < Version(2), x >= Version(1), x in {Version(1, 2)}, x(), Version[3], Child(1).parts
        """,
    ),
    Specimen(
        "super_and_class_cell",
        """
        class Parent:
            def name(self): return "parent"
            @classmethod
            def make(cls): return cls()
        class OfParent(Parent):
            def name(self): return super().name() + "/" + __class__.__name__
            def __reduce__(self): return OfParent.make, ()
        VALUE = OfParent()
        def check(x): return x.name(), type(x.make()) is OfParent
        """,
    ),
    Specimen(
        "custom_pickling",
        """
        class Stateful:
            def __init__(self, n): self.n, self.lock = n, threading.Lock()
            def __getstate__(self): return {"n": self.n}
            def __setstate__(self, state): self.__init__(state["n"])
        class ByNewArguments:
            def __new__(cls, *, n): self = super().__new__(cls); self.n = n; return self
            def __getnewargs_ex__(self): return (), {"n": self.n}
        VALUE = (Stateful(3), ByNewArguments(n=4))
        def check(x): return x[0].n, x[0].lock.locked(), x[1].n
        """,
    ),
    Specimen(
        "exceptions",
        """
        class NoLuck(Exception):
            def __init__(self, name, *, code):
                super().__init__(f"no luck, {name}")
                self.code = code
        class WorseLuck(NoLuck): pass
        VALUE = WorseLuck("you", code=7)
        def check(x):
            try: raise x
            except NoLuck as error: return str(error), error.code, type(error) is WorseLuck
        """,
    ),
    Specimen(
        "exception_group",
        """
        class PartFailed(ValueError): pass
        VALUE = ExceptionGroup("several", [PartFailed("a"), KeyError("b")])
        def check(x):
            told = []
            try: raise x
            except* PartFailed as group: told += [str(error) for error in group.exceptions]
            except* KeyError: told.append("key")
            return told
        """,
    ),
    Specimen(
        "nested_and_local_classes",
        """
        class House:
            class Room:
                def __init__(self, n): self.n = n
        def make_local():
            class Local:
                def __init__(self, n): self.n = n
                def again(self): return Local(self.n + 1)
            return Local
        Dynamic = type("Dynamic", (), {"f": lambda self: 5})
        Made = make_local()
        VALUE = (House.Room(1), Made(2), Dynamic())
        def check(x): return x[0].n, type(x[0]) is House.Room, x[1].again().n, Made(3).n, x[2].f()
        """,
    ),
    Specimen(
        "classes_that_name_each_other",
        """
        class Chicken:
            def egg(self): return Egg()
        class Egg:
            parent = Chicken
            def hatch(self): return self.parent()
        Chicken.child = Egg
        VALUE = Chicken()
        def check(x): return type(x.egg().hatch()) is Chicken, Chicken.child is Egg
        """,
    ),
    Specimen(
        "class_attributes_change",
        """
        class Tallied:
            total = 0
            @classmethod
            def more(cls): cls.total += 1; return cls.total
        VALUE = Tallied
        EXPECTED = [True, True]
        def check(x):
            before = Tallied.total
            return [x.more() == before + 1, Tallied.total == before + 1]
        """,
    ),
    Specimen(
        "object_is_class",
        """
        class Kind: pass
        class Member(Kind): pass
        VALUE = {Kind: "kind", "made": Member()}
        def check(x):
            again = pickle.loads(pickle.dumps(x["made"]))
            return x[Kind], isinstance(x["made"], Kind), type(x["made"]) is Member, type(again) is Member
        """,
    ),
)

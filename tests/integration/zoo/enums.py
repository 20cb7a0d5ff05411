"""Rows of the zoo: enums whose members hold more than their value."""

from __future__ import annotations

from tests.integration.zoo.specimen import Specimen

ENUMS = (
    Specimen(
        "enum_plain",
        """
        class Colour(enum.Enum):
            RED = enum.auto()
            BLUE = enum.auto()
            def shout(self): return self.name + "!"
        VALUE = Colour.BLUE
        def check(x): return x is Colour.BLUE, x.shout(), [m.name for m in Colour], Colour(2) is x
        """,
    ),
    Specimen(
        "enum_class",
        """
        class Tint(str, enum.Enum):
            LIGHT = "l"
            DARK = "d"
        VALUE = Tint
        def check(x): return x is Tint, x("d") is Tint.DARK, x["LIGHT"] == "l"
        """,
    ),
    Specimen(
        "enum_dataclass_mixin",
        """
        @dataclasses.dataclass
        class SheetSize:
            w: int
            h: int = 1
        class Paper(SheetSize, enum.Enum):
            A4 = 210, 297
            CARD = 85, 55
        VALUE = Paper.A4
        def check(x): return x is Paper.A4, x.w, x.h, Paper.CARD.h
        """,
    ),
    Specimen(
        "enum_dataclass_one",
        """
        @dataclasses.dataclass
        class OneField: x: int = 1
        class Ones(OneField, enum.Enum): P = 1; Q = 2
        VALUE = Ones.Q
        def check(x): return x is Ones.Q, x.x
        """,
    ),
    Specimen(
        "enum_new_bytes",
        """
        class Coordinate(bytes, enum.Enum):
            def __new__(cls, value, label):
                member = bytes.__new__(cls, [value]); member._value_ = value; member.label = label; return member
            PX = (0, "P.X"); PY = (1, "P.Y")
        VALUE = Coordinate.PY
        def check(x): return x is Coordinate.PY, x.label, x.value, bytes(x) == b"\\x01", Coordinate(1) is x
        """,
    ),
    Specimen(
        "enum_new_counts",
        """
        class AutoNumber(enum.Enum):
            def __new__(cls, *a):
                member = object.__new__(cls); member._value_ = len(cls.__members__) + 1; return member
            def __init__(self, title="none"): self.title = title
            RED = "red"; BLUE = "blue"
        VALUE = AutoNumber.BLUE
        def check(x): return x is AutoNumber.BLUE, x.value, x.title
        """,
    ),
    Specimen(
        "enum_attributes",
        """
        class Planet(enum.Enum):
            EARTH = (5.9, 6.3)
            MARS = (0.6, 3.4)
            def __init__(self, mass, radius): self.mass = mass; self.radius = radius
            @property
            def density(self): return self.mass / self.radius
            @classmethod
            def heaviest(cls): return max(cls, key=lambda planet: planet.mass)
            @staticmethod
            def count(): return 2
        VALUE = Planet.EARTH
        def check(x): return x is Planet.EARTH, x.mass, x.density, x.value, Planet.heaviest() is x, x.count()
        """,
    ),
    Specimen(
        "enum_int_phrase",
        """
        class Status(int, enum.Enum):
            def __new__(cls, value, phrase=""):
                member = int.__new__(cls, value); member._value_ = value; member.phrase = phrase; return member
            OK = 200, "fine"; BAD = 400, "bad"
        VALUE = Status.OK
        def check(x): return x is Status.OK, x.phrase, int(x), x + 1, Status(400) is Status.BAD
        """,
    ),
    Specimen(
        "enum_flag_zero",
        """
        class Permission(enum.Flag):
            NONE = 0
            R = 1
            W = 2
            RW = 3
        VALUE = Permission.NONE
        def check(x):
            names = [m.name for m in Permission.__members__.values()]
            return x is Permission.NONE, x.value, names, (Permission.R | Permission.W) is Permission.RW
        """,
    ),
    Specimen(
        "enum_flag_composite",
        """
        class Access(enum.Flag):
            NONE = 0
            R = 1
            W = 2
            X = 4
            RW = R | W
        VALUE = [Access.RW, Access.R | Access.X]
        def check(x):
            named, combined = x
            single = [*Access] == [Access.R, Access.W, Access.X]
            return named is Access.RW, combined is (Access.R | Access.X), combined.value, ~named is Access.X, single
        """,
    ),
    Specimen(
        "enum_int_flag",
        """
        class Signs(enum.IntFlag): A = 11; B = 37; C = 389
        VALUE = Signs.B
        def check(x): return x is Signs.B, int(x), list(Signs.__members__), int(Signs.A | 64)
        """,
    ),
    Specimen(
        "enum_flag_boundary",
        """
        class Kept(enum.Flag, boundary=enum.KEEP):
            A = 1
            B = 2
        class Strict(enum.Flag, boundary=enum.STRICT):
            A = 1
        VALUE = Kept(9)
        def check(x):
            try: Strict(8)
            except ValueError: strict = True
            else: strict = False
            return x.value, x is Kept(9), strict
        """,
    ),
    Specimen(
        "enum_alias",
        """
        class Number(enum.Enum):
            ONE = 1; UNO = 1; TWO = 2
        VALUE = Number.UNO
        def check(x): return x is Number.ONE, Number.UNO is Number.ONE, list(Number.__members__), x.name
        """,
    ),
    Specimen(
        "enum_unhashable",
        """
        class Preset(enum.Enum):
            DEFAULT = {"a": [1]}
            OTHER = {"a": [1]}
            THIRD = {"b": []}
        VALUE = Preset.THIRD
        def check(x): return x is Preset.THIRD, Preset.OTHER is Preset.DEFAULT, Preset({"b": []}) is x, x.value
        """,
    ),
    Specimen(
        "enum_missing",
        """
        class Lenient(enum.Enum):
            UNKNOWN = "?"
            _ignore_ = ["hidden"]
            hidden = 1
            @classmethod
            def _missing_(cls, value): return cls.UNKNOWN
            def __str__(self): return "lenient"
        VALUE = Lenient.UNKNOWN
        def check(x): return Lenient("nothing") is x, str(x), hasattr(Lenient, "hidden")
        """,
    ),
    Specimen(
        "enum_function_members",
        """
        class Operation(enum.Enum):
            ADD = enum.member(operator.add)
            def apply(self, *args): return self.value(*args)
            plain = enum.nonmember(5)
        VALUE = Operation.ADD
        def check(x): return x is Operation.ADD, x.apply(1, 2), Operation.plain
        """,
    ),
    Specimen(
        "enum_functional",
        """
        Functional = enum.Enum("Functional", ["A", "B"])
        VALUE = Functional.B
        def check(x): return x is Functional.B, x.value, [m.name for m in Functional]
        """,
    ),
    Specimen(
        "enum_generated",
        """
        class Tidy(enum.StrEnum):
            @staticmethod
            def _generate_next_value_(name, start, count, last): return name.lower() + str(count)
            FIRST = enum.auto()
            SECOND = enum.auto()
        VALUE = Tidy.SECOND
        def check(x): return x is Tidy.SECOND, x.value, f"{x}", x == "second1"
        """,
    ),
    Specimen(
        "enum_in_structures",
        """
        class Level(enum.IntEnum):
            LOW = 1
            HIGH = 2
        @dataclasses.dataclass(frozen=True)
        class Setting:
            level: Level = Level.HIGH
            by_level: dict = dataclasses.field(default_factory=lambda: {Level.LOW: "low"})
        VALUE = {Level.LOW: Setting(), "deep": [(Level.HIGH,)]}
        def check(x):
            setting = x[Level.LOW]
            return setting.level is Level.HIGH, setting.by_level[Level.LOW], x["deep"][0][0] is Level.HIGH
        """,
    ),
    Specimen(
        "enum_nested",
        """
        class Outer:
            class Inner(enum.Enum):
                A = 1
            chosen = Inner.A
        VALUE = Outer.Inner.A
        def check(x): return x is Outer.Inner.A, x is Outer.chosen, Outer.Inner.__qualname__
        """,
    ),
)

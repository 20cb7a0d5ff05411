"""Rows of the zoo: functions in all their wrappings, caches, and what pickle writes by name."""

from __future__ import annotations

from tests.integration.zoo.specimen import Specimen

CALLABLES = (
    Specimen(
        "lru_cache",
        """
        @functools.lru_cache(maxsize=None)
        def fibonacci(n): return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
        fibonacci.note = "kept"
        VALUE = fibonacci
        def check(x): return x(10), x.cache_parameters()["maxsize"], x.note, x.__wrapped__(1), x.__name__
        """,
    ),
    Specimen(
        "lru_cache_is_fresh",
        """
        @functools.lru_cache(maxsize=7, typed=True)
        def halved(n): return n / 2
        halved(4)
        VALUE = halved
        EXPECTED = [7, True, 2.0]
        def check(x): return [x.cache_parameters()["maxsize"], x.cache_parameters()["typed"], x(4)]
        """,
    ),
    Specimen(
        "cache",
        """
        @functools.cache
        def squared(n): return n * n
        VALUE = squared
        def check(x): return x(4), x.cache_info().maxsize
        """,
    ),
    Specimen(
        "lru_cache_of_lambda",
        """
        memo = functools.lru_cache(maxsize=8)(lambda n: n + 1)
        VALUE = memo
        def check(x): return x(1), x.cache_info().maxsize
        """,
    ),
    Specimen(
        "lru_cache_of_method",
        """
        class Counted:
            def __init__(self, step): self.step = step
            @functools.lru_cache
            def add(self, n): return n + self.step
            @functools.cache
            def own(self): return self
            @staticmethod
            @functools.cache
            def static(n): return n
            @classmethod
            @functools.cache
            def made(cls, n): return cls(n).step
        VALUE = Counted(2)
        def check(x): return x.add(1), x.own() is x, Counted.static(3), Counted.made(4)
        """,
    ),
    Specimen(
        "cached_property",
        """
        class Lazily:
            def __init__(self, n): self.n = n
            @functools.cached_property
            def doubled(self):
                "Twice n."
                return self.n * 2
        VALUE = Lazily(3)
        def check(x): return x.doubled, x.__dict__["doubled"], Lazily.doubled.__doc__, Lazily(4).doubled
        """,
    ),
    Specimen(
        "singledispatch",
        """
        @functools.singledispatch
        def show(x): return "any"
        @show.register
        def show_int(x: int): return "int"
        @show.register(str)
        def _(x): return "str"
        class Shown: pass
        show.register(Shown, lambda x: "shown")
        VALUE = show
        def check(x): return x(1), x("a"), x(2.0), x(Shown()), x.dispatch(bool) is x.dispatch(int)
        """,
    ),
    Specimen(
        "singledispatchmethod",
        """
        class Dispatching:
            @functools.singledispatchmethod
            def f(self, x): return "any"
            @f.register
            def _(self, x: int): return "int"
            @f.register(str)
            def _(self, x): return "str"
        VALUE = Dispatching()
        def check(x): return x.f(1), x.f(""), x.f(2.0)
        """,
    ),
    Specimen(
        "partials",
        """
        def plus(a, b): return a + b
        class Partly:
            def f(self, a, b): return a + b
            g = functools.partialmethod(f, 1)
            @property
            def x(self): return 1
            @functools.wraps(f)
            def h(self, a, b): return self.f(a, b)
        VALUE = (functools.partial(plus, 5), Partly().g, Partly())
        def check(x): return x[0](2), x[1](2), x[2].g(3), x[2].x, x[2].h(1, 2)
        """,
    ),
    Specimen(
        "decorated",
        """
        def twice(function):
            @functools.wraps(function)
            def inner(*args): return function(*args), function(*args)
            return inner
        @twice
        def greeted(name): return "hello " + name
        VALUE = greeted
        def check(x): return x("you"), x.__name__, x.__wrapped__("me")
        """,
    ),
    Specimen(
        "context_managers",
        """
        @contextlib.contextmanager
        def entered(): yield 3
        class Timer(contextlib.ContextDecorator):
            def __enter__(self): return self
            def __exit__(self, *error): return False
        @Timer()
        def timed(): return 5
        VALUE = (entered, timed)
        def check(x):
            with x[0]() as value: return value, x[1]()
        """,
    ),
    Specimen(
        "generator_function",
        """
        def counted(n): yield from range(n)
        async def awaited(n): return n
        async def streamed(n):
            for i in range(n): yield i
        VALUE = (counted, awaited, streamed)
        def check(x):
            async def collected(): return [i async for i in x[2](3)], await x[1](4)
            return list(x[0](3)), asyncio.run(collected())
        """,
    ),
    Specimen(
        "recursive_closures",
        """
        def make_pair():
            def even(n): return n == 0 or odd(n - 1)
            def odd(n): return n != 0 and even(n - 1)
            return even, odd
        VALUE = make_pair()
        def check(x): return x[0](10), x[1](10)
        """,
    ),
    Specimen(
        "nonlocal_state",
        """
        def counter():
            count = 0
            def more():
                nonlocal count
                count += 1
                return count
            return more
        VALUE = counter()
        EXPECTED = [1, 2]
        def check(x): return [x(), x()]
        """,
        not_on_dask="tasks of one process share its state",
    ),
    Specimen(
        "made_by_exec",
        """
        executed = {}
        exec("def made(x): return x + 100", executed)
        made = executed["made"]
        VALUE = made
        def check(x): return x(1)
        """,
    ),
    Specimen(
        "operators",
        """
        getter, caller = operator.itemgetter("a"), operator.methodcaller("upper")
        VALUE = (getter, caller, operator.attrgetter("real"))
        def check(x): return x[0]({"a": 1}), x[1]("x"), x[2](5)
        """,
    ),
    Specimen(
        "bound_methods",
        """
        class Bound:
            def __init__(self, n): self.n = n
            def method(self): return self.n
            @classmethod
            def of_class(cls): return cls.__name__
            @staticmethod
            def static(): return "static"
        VALUE = [Bound(3).method, Bound.of_class, Bound.static, Bound.method]
        def check(x): return x[0](), x[1](), x[2](), x[3](Bound(4))
        """,
    ),
    Specimen(
        "defaults_and_keywords",
        """
        class Marker: pass
        MISSING = Marker()
        def optional(a, /, b=MISSING, *args, c: "Marker" = MISSING, **more):
            return b is MISSING, c is MISSING, len(more)
        VALUE = optional
        def check(x): return x(1), x(1, 2, c=3, d=4), str(inspect.signature(x).replace(return_annotation=1))[:4]
        """,
    ),
    Specimen(
        "async_flow_parts",
        """
        async def fetched(n):
            await asyncio.sleep(0)
            return n * 2
        class Source:
            async def __aenter__(self): return self
            async def __aexit__(self, *error): return False
            def __aiter__(self): return self.items()
            async def items(self):
                for n in range(3): yield await fetched(n)
        VALUE = Source()
        def check(x):
            async def main():
                async with x as source: return [n async for n in source]
            return asyncio.run(main())
        """,
    ),
    Specimen(
        "vectorized",
        """
        class InArray: pass
        VALUE = (numpy.arange(10), numpy.vectorize(lambda x: x + 1), numpy.array([InArray(), None], dtype=object))
        def check(x): return int(x[0].sum()), [int(n) for n in x[1](x[0])[:2]], type(x[2][0]) is InArray
        """,
    ),
    Specimen(
        "counters_and_random",
        """
        VALUE = (itertools.count(5), random.Random(3), numpy.random.default_rng(3), re.compile("a+"))
        EXPECTED = [5, random.Random(3).random(), float(numpy.random.default_rng(3).random()), "aaa"]
        def check(x): return [next(x[0]), x[1].random(), float(x[2].random()), x[3].match("aaab").group()]
        """,
        not_on_dask="tasks of one process share its state",
    ),
)

"""A user's program with mistakes: each line that ends with ``# wrong`` is one that a type checker must report."""

from typing import assert_type

from dispatcher import Dispatcher, Run, flow
from dispatcher.client.runs import Runs


@flow
def word_count(path: str, top: int = 3) -> dict[str, int]:
    return {path: top}


@flow(retries=2)
async def later(seconds: float) -> str:
    return str(seconds)


with Dispatcher("memory://") as client:
    run = client.submit(word_count.bind("README.md", top=5), tags=["docs"], timeout=60)
    assert_type(run, Run[dict[str, int]])
    assert_type(run.result(), dict[str, int])
    assert_type(client.submit(later.bind(1.5)).result(), str)
    assert_type(client.submit(word_count, {"path": "x"}).result(), dict[str, int])
    runs = client.map([word_count.bind(name) for name in ("a", "b")])
    assert_type(runs, Runs[dict[str, int]])
    assert_type(runs.results(), list[dict[str, int]])
    done, not_done = client.wait(runs)
    assert_type([each.result() for each in done], list[dict[str, int]])
    assert_type(client.map(later, [{"seconds": 1.0}])[0].result(), str)
    assert_type(runs[1:], Runs[dict[str, int]])

    client.submit(word_count.bind(3))  # wrong
    client.submit(word_count.bind("x", tops=3))  # wrong
    client.submit(word_count.bind())  # wrong
    client.submit(word_count, "x")  # wrong
    client.submit(word_count, {"path": "x"}, timout=3)  # wrong
    client.submit(word_count.bind("x"), retries="many")  # wrong
    client.submit(len)  # wrong
    number: int = client.submit(word_count.bind("x")).result()  # wrong
    text: str = client.submit(later.bind(1.0)).result().upper().count("x")  # wrong
    [each.result() for each in client.wait(runs)]  # wrong

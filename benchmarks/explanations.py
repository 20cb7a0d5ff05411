"""Explanations for figures out of their bound, which the page shows where a bound is missed.

Times are of the machine of the first full run, from profiles (py-spy), from time stamps along single runs and from the
server's command statistics.
"""

from __future__ import annotations

_CONTENTION = """One client with the server, or one worker, fills a core. From two on the processor is full, or
    processes wait for one another (the table of clients and workers below has the cores that each used). A submit
    wakes a process twice, which takes longer the more processes there are; bare Celery's clients have that cost too."""

#: Explanations by the prefix of a figure's name.
_EXPLANATIONS = {
    "completed": """On two full cores, processor time decides: our worker uses about a tenth more than bare Celery's
        (see the rows on processor time), which the client's saving makes up for. Our parent process uses half of
        Celery's time, because no message waits to be acknowledged; a pool process uses 0.6 ms to Celery's 0.35. It
        calls two scripts, verifies the signature, opens the flow and captures its output: 0.35 ms, of which no
        single function takes a tenth. The server spends 0.2 ms in the three scripts of a run.""",
    "submit": """The worker starts at once and shares two cores with the client and the server, so the rate of either
        side depends on the processor time of a whole run, of which our worker needs more. If no worker takes the runs,
        ours is half as fast again as bare Celery. The client takes 0.1 ms, a quarter of it in the connection; the flow
        is pickled again (0.04 ms) only if it may have changed. The server takes 0.08 ms, half of it in the script.""",
    "map": """The client signs and sends a record in 0.04 ms; the script accepts a hundred runs in 1.5 ms. Beside it a
        worker starts at once and uses the same two cores.""",
    "idle: start": """By time stamps on a quiet machine, the client takes 0.1 ms until the request is sent; a pool
        process starts after 0.7 ms, bare Celery's after 0.9. Ours claims the run, which it reads first only if it has
        seen none like it (0.25 ms: the script, its reply, and waking a process twice), captures the output (0.08),
        verifies the spec and opens the flow (0.15); bare Celery calls the function with the message's arguments. The
        claim is what makes an attempt start only once.""",
    "a flow that logs": """A line costs the flow 5 µs, and sending a hundred of them 0.4 ms of its interpreter: one per
        cent. The rest is the server and the follower, which compete with the flow for the cores; the silent flow then
        takes longer than its two seconds as well.""",
    "8 clients": _CONTENTION,
    "4 workers": _CONTENTION,
    "5,000 live runs: memory": """Each of the two pool processes has a share of 36 MB. The rest belongs to the parent
        process: its code, 14 KB for each run (8 of them the record, 5 its pod and Job), and freed memory that isn't
        returned to the system.""",
    "idle: result": """From the flow's start to the result in the client, ours takes less time than bare Celery. The end
        of a run is prepared for its kind, so that it takes 0.03 ms and one script (0.1), whose notice has all that the
        client needs; the output's descriptors are restored after that, if nothing was printed. The time is lost before:
        the claim (0.1, and the script), the output's descriptors (0.04), the signature and the other steps of opening a
        flow by value (0.1). On this machine, waking any process takes 0.05 to 0.1 ms.""",
}


def explanation(name: str) -> str:
    """Return the explanation for the missed bound of the figure with that name."""
    text = next((text for prefix, text in _EXPLANATIONS.items() if name.startswith(prefix)), "Not looked into yet.")
    return " ".join(text.split())

"""Why a figure is out of its bound, as far as it was looked into; for the page, which shows it only where it is missed.

Times are of the machine of the first full run, from profiles (py-spy), from marks along the way of single runs and from
the server's statistics of its commands.
"""

from __future__ import annotations

_CROWD = """One client with the server, or one worker, fills a core: they take turns. From two on the processor is full,
    or processes wait for one another (the table of clients and workers below says who used how much of it). A submit
    is two wakings of a process, which cost the more the more of them there are; bare Celery's clients pay the same."""

#: By what the names of figures begin with.
_WHY = {
    "completed": """On two full cores it is processor time that counts: our worker uses about a tenth more than bare
        Celery's (see the rows on processor time), which the client's saving makes up for. The parent process costs
        half of Celery's on our side, for no message waits to be acknowledged; a pool process costs 0.6 ms to 0.35. It
        writes two scripts, verifies the signature, opens the flow and catches its output: 0.35 ms, of which no single
        function takes a tenth. The server spends 0.2 ms in the three scripts of a run.""",
    "submit": """The worker begins at once and has two of two cores to share with the client and the server: what both
        sides reach is given by the processor time of a whole run, of which our worker needs more. Where nobody takes
        the runs it is half as quick again as bare Celery. The client's part is 0.1 ms, a quarter of it in the
        connection; the flow is pickled again (0.04 ms) only where it may have changed. The server takes 0.08 ms, half
        of it in the script.""",
    "map": """The client signs and sends a record in 0.04 ms; the script accepts a hundred runs in 1.5 ms. Beside it a
        worker begins at once and uses the same two cores.""",
    "idle: start": """Marks on a quiet machine: the client takes 0.1 ms until the request is sent; after 0.7 a
        pool process begins, where bare Celery's begins at 0.9. It claims the run, which is read first only where none
        like it was seen (0.25 ms: the script, its reply, and two wakings of a process), catches the output (0.08),
        verifies the spec and opens the flow (0.15); bare Celery calls the function with what the message brought. The
        claim is what makes an attempt begin once.""",
    "a flow that logs": """A line costs the flow 5 µs, and sending a hundred of them 0.4 ms of its interpreter: one per
        cent. What is above that are server and follower, which take the cores from the flow where others use them too;
        the silent flow then takes longer than its two seconds as well.""",
    "8 clients": _CROWD,
    "4 workers": _CROWD,
    "5,000 live runs: memory": """Each of the two pool processes has a share of 36 MB, the rest is the
        parent's: its code, 14 KB for each run (8 of them the record, 5 its pod and Job), and what was freed in
        between and isn't given back.""",
    "idle: result": """From the flow's start to the result in the client ours takes less than bare Celery's: the end
        of a run is prepared for its kind, so that 0.03 ms and one script (0.1) are left of it, whose notice tells the
        client all; the output's descriptors are given back after that, where nothing was printed. What is lost is lost
        before: the claim (0.1, and the script), the output's descriptors (0.04), the signature and what else opens a
        flow that travels by value (0.1). A wake-up of a process costs 0.05 to 0.1 ms on this machine, of whichever.""",
}


def why(name: str) -> str:
    """Why the figure of that name is missed."""
    found = next((text for start, text in _WHY.items() if name.startswith(start)), "Not looked into yet.")
    return " ".join(found.split())

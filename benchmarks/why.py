"""Why a figure is out of its bound, as far as it was looked into; for the page, which shows it only where it is missed.

Times are of the machine of the first full run, from profiles (py-spy), from marks along the way of single runs and from
the server's statistics of its commands.
"""

from __future__ import annotations

#: By what the names of figures begin with.
_WHY = {
    "completed": """On two full cores it is processor time that counts. Pool processes of ours use four times that of
        bare Celery's (0.7 ms per run in a quiet moment): they read the record, write two scripts through the table of
        transitions, verify the signature, open the flow and catch its output. No single function takes a tenth of it.
        The server spends 0.2 ms in the three scripts of a run.""",
    "submit": """A submit takes 0.36 ms of processor time in the client: a fifth to pickle the flow as it is at that
        moment, a fifth for the signed record, a fifth to list the script's steps; the rest goes to the connection. The
        server's script takes 0.07 ms. The worker begins at once, and what its processes use is not the client's.""",
    "map": """Without the pickle, and with one round trip for 200 runs: what is left are a signed record and 0.07 ms of
        the server's script per run, and a worker that begins at once and uses the same two cores.""",
    "idle: start": """Before the flow's code begins, the pool process reads the record (0.1 ms), claims the run (0.3 ms:
        the transition, the script, its reply), catches the output and opens the flow (0.2 ms); bare Celery calls the
        function with what the message brought. The claim is what makes an attempt begin once.""",
    "idle: result": """What is lost is lost before the flow's start: from there to the result in the client both sides
        take about as long.""",
}


def why(name: str) -> str:
    """Why the figure of that name is missed."""
    found = next((text for start, text in _WHY.items() if name.startswith(start)), "Not looked into yet.")
    return " ".join(found.split())

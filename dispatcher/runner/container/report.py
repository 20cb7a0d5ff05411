"""The reports of a runner in a container, authenticated by the attempt's token.

The runner adds entries to its shard's inbox; the supervisor (``workers/supervisor/reports.py``) verifies them and
decides what follows. Each entry carries a MAC made with the attempt's token, so that the container of one run can't
report for another.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dispatcher.errors import SealBroken
from dispatcher.runs.cluster import WorkerReport
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.support.parsing import MOST, Fields, read_object, word


class ReportKind(StrEnum):
    """The kind of a report."""

    CLAIMED = "claimed"  #: the runner claims the attempt; ``holder`` identifies its process
    SETTLED = "settled"  #: the flow has ended with this outcome; ``on_exit`` is called next
    EXITED = "exited"  #: the attempt ended with this outcome
    ALIVE = "alive"  #: a heartbeat, every 10 s; no outcome
    WORKERS = "workers"  #: the workers of the run's own cluster have changed; no outcome
    DIED = "died"  #: the flow's process died with this outcome; sent by its parent
    UNKNOWN = "unknown"  #: a kind of another release; counts as a heartbeat


@dataclass(frozen=True, kw_only=True)
class Report:
    """One entry of an inbox. ``workers`` is in reports of the kinds WORKERS and ALIVE, of runs with a cluster of their
    own."""

    run_id: str
    attempt: int
    kind: ReportKind
    outcome: Outcome
    exit_call: ExitCall | None = None
    holder: str = ""
    workers: WorkerReport | None = None

    def to_entry(self, token: str) -> dict[str, str]:
        """Return flat text fields with their MAC."""
        body = json.dumps(
            {
                "run": self.run_id,
                "attempt": self.attempt,
                "about": self.kind,
                "outcome": self.outcome.to_json(),
                "exit_call": self.exit_call,
                **({"holder": self.holder} if self.holder else {}),
                **({} if self.workers is None else {"workers": self.workers.to_json()}),
            }
        )
        return {"run": self.run_id, "body": body, "mac": _mac(token, body)}

    @classmethod
    def from_entry(cls, entry: Mapping[str, str], token: str) -> Report:
        """Verify and parse an entry; the inverse of :meth:`to_entry`.

        Raises:
            SealBroken: the MAC wasn't made with the token.
            Malformed: the entry isn't a report.
        """
        fields = Fields(entry, "report")
        run_id, body = fields.name("run"), fields.text("body", most=MOST)
        if not hmac.compare_digest(fields.text("mac").encode(errors="replace"), _mac(token, body).encode()):
            raise SealBroken(f"a report on run {run_id} was not made by the attempt it names")
        data = read_object(body, "report")
        exit_call, workers = data.data.get("exit_call"), data.data.get("workers")
        return cls(
            run_id=data.name("run"),
            attempt=data.whole("attempt"),
            kind=word(ReportKind, data.get("about"), "report: about"),
            outcome=Outcome.from_json(data.get("outcome", {})),
            exit_call=None if exit_call is None else word(ExitCall, exit_call, "report: exit_call"),
            holder=data.name("holder", ""),
            workers=None if workers is None else WorkerReport.from_json(workers),
        )


def _mac(token: str, body: str) -> str:
    return hmac.new(bytes.fromhex(token), body.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()

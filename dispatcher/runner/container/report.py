"""The reports of a runner in a container, and how its supervisor knows that one is genuine.

The runner adds entries to its shard's inbox; the supervisor decides what they mean. Each entry carries a MAC made with
the attempt's token, so that the container of one run can't speak for another.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dispatcher.errors import SealBroken
from dispatcher.runs.record import ExitCall, Outcome
from dispatcher.support.parsing import MOST, Fields, read_object, word


class ReportKind(StrEnum):
    """The subject of a report."""

    CLAIMED = "claimed"  #: the runner takes the attempt; whose start of a process it is
    SETTLED = "settled"  #: the outcome; ``on_exit`` comes now
    EXITED = "exited"  #: the attempt ended, with its outcome
    ALIVE = "alive"  #: a sign of life, every 10 s; no outcome
    DIED = "died"  #: the flow's process is dead, says its parent; the outcome says how
    UNKNOWN = "unknown"  #: something that another release reports: a sign of life, and no more


@dataclass(frozen=True, kw_only=True)
class Report:
    """One entry of an inbox."""

    run_id: str
    attempt: int
    kind: ReportKind
    outcome: Outcome
    exit_call: ExitCall | None = None
    holder: str = ""

    def to_entry(self, token: str) -> dict[str, str]:
        """Flat text fields with their MAC."""
        body = json.dumps(
            {
                "run": self.run_id,
                "attempt": self.attempt,
                "about": self.kind,
                "outcome": self.outcome.to_json(),
                "exit_call": self.exit_call,
                **({"holder": self.holder} if self.holder else {}),
            }
        )
        return {"run": self.run_id, "body": body, "mac": _mac(token, body)}

    @classmethod
    def from_entry(cls, entry: Mapping[str, str], token: str) -> Report:
        """The inverse of :meth:`to_entry`.

        Raises:
            SealBroken: the MAC isn't the token's.
            Malformed: it is no report.
        """
        given = Fields(entry, "report")
        run_id, body = given.name("run"), given.text("body", most=MOST)
        if not hmac.compare_digest(given.text("mac").encode(errors="replace"), _mac(token, body).encode()):
            raise SealBroken(f"a report on run {run_id} was not made by the attempt it names")
        data = read_object(body, "report")
        exit_call = data.data.get("exit_call")
        return cls(
            run_id=data.name("run"),
            attempt=data.whole("attempt"),
            kind=word(ReportKind, data.get("about"), "report: about"),
            outcome=Outcome.from_json(data.get("outcome", {})),
            exit_call=None if exit_call is None else word(ExitCall, exit_call, "report: exit_call"),
            holder=data.name("holder", ""),
        )


def _mac(token: str, body: str) -> str:
    return hmac.new(bytes.fromhex(token), body.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()

"""Names of signals in messages."""

from __future__ import annotations

import signal

from dispatcher.support.signal_names import signal_name


def test_a_signal_has_its_name_and_an_unnamed_one_its_number() -> None:
    assert signal_name(signal.SIGKILL) == "SIGKILL"
    assert signal_name(1000) == "signal 1000"

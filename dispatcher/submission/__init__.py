"""From a call of ``submit`` or ``map`` to a signed spec and a new record.

Used by the client and by ``dispatcher render``. Read :mod:`~dispatcher.submission.request` first.
"""

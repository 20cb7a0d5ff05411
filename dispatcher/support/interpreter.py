"""This interpreter, as far as it matters to code that travels."""

from __future__ import annotations

import platform

#: ``major.minor``. Pickled code and code bundles can be opened only in the same version.
PYTHON = ".".join(platform.python_version_tuple()[:2])

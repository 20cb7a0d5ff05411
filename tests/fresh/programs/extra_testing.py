"""The promises of docs/extending.md: the contract of a storage, as tests for those who write one."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from dispatcher.testing import StorageContract

TESTS = """
import pytest
from dispatcher import ModuleStorage
from dispatcher.testing import StorageContract, StorageService

class TestModuleStorage(StorageContract):
    @pytest.fixture
    def service(self):
        return StorageService(storage=ModuleStorage(), installed=True, runs=True)
"""

if __name__ == "__main__":
    import pytest

    assert StorageContract is not None
    with tempfile.TemporaryDirectory() as directory:
        tests = Path(directory, "test_storage.py")
        tests.write_text(TESTS)
        sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", str(tests)]))

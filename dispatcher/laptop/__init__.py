"""The laptop server: one Valkey server per user, shared by ``dispatcher up``, programs and notebooks.

A client joins it if no URL is set. Its data stay in the state directory when it stops. Read
:mod:`dispatcher.laptop.server_commands` first.
"""

from dispatcher.laptop.members import Program
from dispatcher.laptop.server_commands import LaptopSession, LaptopStatus, down, join, status, up
from dispatcher.laptop.worker import Worker

__all__ = ["LaptopSession", "LaptopStatus", "Program", "Worker", "down", "join", "status", "up"]

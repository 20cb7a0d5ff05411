"""The state of a process between two runs: compared with the state before the first run, and restored."""

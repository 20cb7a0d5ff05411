"""The places of flows: in Redis by value, in files, in importable modules."""

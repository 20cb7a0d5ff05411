"""The lines that a flow prints and logs, on their way to the records."""

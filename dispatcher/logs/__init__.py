"""What a flow prints and logs, on its way to the records."""

"""A process between two runs: what is compared, and put back."""

"""The objects that a program holds: the client, its runs, and waits for them."""

"""The arguments of the server's functions for a run: accept it, claim it, change it."""

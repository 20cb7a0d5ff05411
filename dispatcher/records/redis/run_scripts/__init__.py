"""Arguments of the server's functions that accept, claim and change runs. Pure."""

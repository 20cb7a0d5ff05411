"""What the server's functions are told of a run: accept it, claim it, change it."""

"""The pool's processes: started, given runs, interrupted, watched, replaced."""

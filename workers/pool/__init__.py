"""Pool processes: started, given runs, interrupted and replaced."""

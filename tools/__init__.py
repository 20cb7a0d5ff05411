"""Small programs for this checkout; they are not part of the distribution."""

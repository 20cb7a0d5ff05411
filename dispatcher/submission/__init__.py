"""From a call of submit to a signed spec and a new record."""

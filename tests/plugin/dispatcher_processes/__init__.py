"""A backend and a storage in a distribution of their own, as an example and for tests."""

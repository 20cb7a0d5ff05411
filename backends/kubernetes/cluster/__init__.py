"""A cluster's API server: connection, requests, lists, watches and what they cached."""

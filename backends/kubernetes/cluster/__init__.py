"""A cluster's API server: connections, requests, lists and watches, apart from what a Job is."""

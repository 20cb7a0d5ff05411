"""Watches the infrastructure of many runs at once, shard by shard; holds no slot."""

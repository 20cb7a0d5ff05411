"""Supervision of runs whose containers run elsewhere: many at once, shard by shard, without holding a slot."""

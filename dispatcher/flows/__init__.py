"""What a user decorates and calls: flows, tasks and the context of a run."""

"""The objects that a user decorates and calls: flows and tasks."""

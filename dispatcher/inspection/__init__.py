"""Answers to people's questions about runs, queues and workers, made from records."""

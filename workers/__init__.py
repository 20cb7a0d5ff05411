"""The engine: Celery workers that move runs between states. ``python -m workers`` starts one; no user imports this."""

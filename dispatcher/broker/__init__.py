"""The broker: the Celery application, and the doorbells in its queues."""

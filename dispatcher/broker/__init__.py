"""The broker: the Celery application, and the doorbells that its queues carry."""

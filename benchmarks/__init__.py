"""Measures this project against bare Celery, side by side on one server: ``make bench``."""

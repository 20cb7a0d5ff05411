"""Flows as objects in a bucket of S3. Read :mod:`dispatcher.storage.s3.storage` next."""

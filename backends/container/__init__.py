"""What backends of containers share, whatever service runs them. Read :mod:`backends.container.backend` next."""

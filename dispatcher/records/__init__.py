"""Everything that is kept of an installation: one interface per noun, implemented in ``memory`` and ``redis``."""

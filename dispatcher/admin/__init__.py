"""Administration of an installation: what ``dispatcher doctor`` looks at. Read :mod:`dispatcher.admin.doctor` next."""

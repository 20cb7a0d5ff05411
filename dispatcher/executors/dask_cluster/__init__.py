"""The temporary Dask cluster of one run: its scheduler, its workers and their certificates.

The runner opens it (:mod:`dispatcher.executors.dask_cluster.cluster`). The scheduler is a process of its own, beside
the flow's. Its workers are started by somebody else, by the names that the scheduler asks for.
"""

"""Tests of clusters of the Dask operator."""

"""Flows and tasks: the functions that users decorate. Read :mod:`dispatcher.flows.flow` next."""

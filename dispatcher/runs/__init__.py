"""The pure model of a run: values, one table of transitions, and functions from one record to the next. No I/O."""

"""The runner of an attempt in a container: parent and child process, claim, reports."""

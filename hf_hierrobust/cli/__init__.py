"""Command line: the stages of a run, shared by the console script and the examples."""

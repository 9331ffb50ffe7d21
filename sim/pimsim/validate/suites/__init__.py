"""One module a suite: ``SUITE``, and the rows that it compares."""

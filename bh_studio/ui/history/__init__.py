"""The place of kept runs: a table to look through, to open one from and to make room in."""

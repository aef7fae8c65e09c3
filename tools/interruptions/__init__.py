"""Programs that are stopped, asked to end or refused a disk, and what is left of their work.

Starts bh-studio as anyone does and looks at files, exit codes and what was printed; knows nothing
of the program's inside but where rows lie until a result is finished.
"""

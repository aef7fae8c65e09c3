"""Programs that are stopped, asked to end or refused a disk, and what is left of their work.

Starts bh-studio as anyone does and looks at exit codes, at what was printed and at files. Of the
program's inside it knows where rows and runs lie while they are written, and what is on the screen.
"""

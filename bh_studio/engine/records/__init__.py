"""What is kept: sessions, rows, results and how they are read again. Loads no torch."""

"""What crosses a thread or a process: requests, experiments, events. Loads no torch."""

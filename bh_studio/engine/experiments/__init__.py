"""The laboratories: what can be run with a loaded model, each a generator of events."""

"""The laboratories: what can be run with a loaded model or its recordings, and the runner."""

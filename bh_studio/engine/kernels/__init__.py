"""Kernels in Triton, and whether they can run on this machine."""

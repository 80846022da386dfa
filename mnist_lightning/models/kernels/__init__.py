"""Kernels in C for what takes most of the time of training `SimpleCNN` on a CPU."""

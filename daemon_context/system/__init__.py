"""The kernel: processes, signals, descriptors, credentials, paths. Knows nothing of daemons."""

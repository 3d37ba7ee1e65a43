"""The real launchers, each in namespaces of its own, with the same program below each."""

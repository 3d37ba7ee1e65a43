"""Looking at a sequence without changing it: explain, trace, remarks."""

"""What crosses the rooms: the package, its pages and examples, and races, from outside."""

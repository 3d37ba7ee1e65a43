"""Mutation testing: change the library in one place at a time; a test has to fail.

============  ==================================================================================
plan          which modules are mutated, and which test files have to notice
mutants       the mutants of a module: cosmic-ray's operators, and one that removes a statement
worker        runs tests on a mutant in a copy of the tree, in namespaces of its own
order         a plugin for pytest: the tests that are most likely to fail first
judgements    what was found out about the mutants that survive
page          the page in the docs
============  ==================================================================================

``python -m tests.mutation --help`` tells how to run it.
"""

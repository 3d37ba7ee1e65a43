"""Faults in every system call of a start, and death at each of them.

One call of one process is failed (or the process killed, or a signal sent) in each run, through a
seccomp filter that asks this harness about every system call; seccomp_unotify(2). It is told which
process asks, so "the second clone of all" and "the session leader's first clone" differ, which a
tracer that counts in each process by itself can't tell.

============  ==================================================================================
calls         the system calls: names, the errors that the kernel can give, and what is left out
filter        the filter, and the answers to what it asks
facts         what /proc says about a process, and the kernel about the lock of a pid file
programs      the programs that are started: ours in each variant, and the rivals
run           one start: who is who, which call is which, and what happens at the chosen one
verdict       what a run has shown: tolerated, clean, or what is wrong
worker        runs cases, one after the other
campaign      makes the cases from an undisturbed start, and spreads them over workers
rivals        the same runs on others, which must be convicted
guarantees    the table in the docs
============  ==================================================================================

``python -m tests.faults --help`` tells how to run it.
"""

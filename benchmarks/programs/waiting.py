"""The double fork by hand whose launcher waits until the daemon runs: the limit for an answer."""

import os

import stage

stage.begin()
stage.before_open()

heard, say = os.pipe()
if os.fork():
    os.close(say)
    os.read(heard, 1)
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.chdir("/")
os.umask(0)
null = os.open(os.devnull, os.O_RDWR)
for number in (0, 1, 2):
    os.dup2(null, number)
os.close(null)
os.write(say, b"r")
os.close(heard)
os.close(say)
stage.running()

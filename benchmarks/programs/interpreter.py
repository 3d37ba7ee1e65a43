"""No daemon at all: what the interpreter's own start costs, of which nobody can save anything."""

import stage

stage.begin()
stage.before_open()
stage.running()

"""Descriptors or processes run out: an error, wherever it is."""

from __future__ import annotations

import json

import pytest

from tests.helpers import support


@pytest.mark.parametrize("closed", [(), (0,), (0, 1)])
def test_descriptors_that_run_out_anywhere_are_an_error(
    box: support.Sandbox, closed: tuple[int, ...]
) -> None:
    done = box.run("""
        import resource
        from tests.helpers.launching import *
        from tests.helpers.support import preload
        preload()   # an import that fails is Python's error, and not about a step
        for fd in sys.argv[1:]:
            os.close(int(fd))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = max(3, *open_files()) + 1
        outcomes = []
        for spare in range(40):
            report("outcomes", outcomes)
            context = DaemonContext(
                pidfile="d.pid", stdout="out.log", stderr="err.log", detach_process=True)
            before = surroundings()
            # Too low to succeed, but higher each time: so it fails at one place after the other.
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, hard))
            try:
                context.open()
                break
            except BaseException as error:
                caught = error
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            if sys.argv[1:] and os.path.exists("d.pid"):
                # Created under a number that it can't keep; unlocked, only the next start may
                # remove it.
                assert os.path.getsize("d.pid") == 0
                os.unlink("d.pid")
            after = surroundings()
            changed = {k: [before[k], after[k]] for k in before if before[k] != after[k]}
            outcomes.append({**describe(caught), "changed": changed})
            del caught
        context.sleep()
    """, *closed)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done
    outcomes = json.loads(box.text("outcomes"))
    assert 3 <= len(outcomes) < 39
    for outcome in outcomes:
        assert outcome["changed"] == {}, outcome
        assert "Too many open files" in outcome["message"] + str(outcome["notes"]), outcome
        assert outcome["errno"] == 24
        assert outcome["step"]
    assert support.alive(box.pid())


@pytest.mark.root
@pytest.mark.parametrize("how", ["open", "spawn"])
@pytest.mark.parametrize(("limit", "which"), [(1, "first"), (2, "second")])
def test_a_fork_that_fails_is_an_error(
    open_box: support.Sandbox, limit: int, which: str, how: str
) -> None:
    done = open_box.run(
        """
        import os, resource, sys
        from tests.helpers.launching import *
        from tests.helpers.support import preload
        preload()
        # A user of its own: the limit counts all processes of the user.
        uid = 1_000_000 + os.getpid()
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        limit = int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
        class Spawned(DaemonContext):
            def open(self):
                self.spawn(print)
        kind = {"open": DaemonContext, "spawn": Spawned}[sys.argv[2]]
        options = {"pidfile": "d.pid", "stdout": "out.log", "detach_process": True}
        print(json.dumps(attempt(kind(**options))))
        """,
        limit,
        how,
    )
    assert done.returncode == 0, done
    outcome = json.loads(done.stdout)
    assert outcome["class"] == "DaemonProcessDetachError"
    assert f"the {which} fork failed" in outcome["message"]
    assert (outcome["errno"], outcome["step"]) == (11, "detach")
    assert "OSError" in outcome["kinds"]
    assert outcome["changed"] == {}

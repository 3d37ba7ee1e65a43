"""What a step is, and how steps are ordered."""

from __future__ import annotations

from ..errors import SequenceError, UnknownStepError, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, ClassVar, NoReturn

    from ..options.frozen import Options
    from .walk import Walk


class Step:
    """One named action of the sequence.

    A step of your own is a subclass with an `apply`; its fields, if it has any, are its own.
    Stock steps have none: all they read are the frozen options of the walk.
    """

    #: Key for edits, traces and errors; made from the class's name where it is not given.
    name: ClassVar[str] = ""
    #: What a trace may see change when the step is applied.
    touches: ClassVar[frozenset[str]] = frozenset()
    #: Steps that must come before this one, if they are there, each with the reason.
    after: ClassVar[Mapping[str, str]] = {}
    #: What to do when the step fails; a phrase at the end of the error.
    remedy: ClassVar[str] = ""
    #: Whether `apply` never waits. Signals then wait for it, in a process that goes on if the start
    #: is interrupted: what a handler raises must not come between doing something and noting it.
    at_once: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.name:
            dashed = "".join(f"-{c.lower()}" if c.isupper() else c for c in cls.__name__)
            cls.name = dashed.strip("-_")

    def needed(self, options: Options) -> bool:
        """Whether there is anything to do. Pure."""
        return True

    def describe(self, options: Options) -> str:
        """What the step does, as a phrase that follows "cannot" as well. Pure."""
        return self.name.replace("-", " ")

    def why_not(self, options: Options) -> str:
        """Why the step is not needed, where `needed` says so. Pure."""
        return "there is nothing to do"

    def check(self, walk: Walk) -> None:
        """Preflight, in the launcher: raise if `apply` can't work. Changes nothing."""

    def apply(self, walk: Walk) -> Any:
        """Do it, and return what `undo` needs. In which process depends on the position."""
        raise NotImplementedError(f"{type(self).__name__} has no apply(walk) method")

    def undo(self, walk: Walk, memory: Any) -> None:
        """Restore what `apply` changed: in the process that applied it, or, of a launcher that was
        killed, in the session leader.
        """

    def __repr__(self) -> str:
        fields = ", ".join(f"{key}={value!r}" for key, value in vars(self).items())
        return f"{type(self).__name__}({fields})"


class Steps:
    """The ordered, immutable collection of steps. Every verb returns a new one.

    :raises SequenceError: something is not a step, two have one name, or the order can't work
    """

    __slots__ = ("_names", "_steps")
    _steps: tuple[Step, ...]
    _names: tuple[str, ...]

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        object.__setattr__(self, "_steps", tuple(steps))
        for step in self._steps:
            _require_step(step)
        object.__setattr__(self, "_names", tuple(step.name for step in self._steps))
        for number, step in enumerate(self._steps):
            _require_order(step, self.names[:number], self.names[number + 1 :])

    @property
    def names(self) -> tuple[str, ...]:
        """The steps' names, in order."""
        return self._names

    def index(self, name: str) -> int:
        """The position of the step of that name, from 0.

        :raises UnknownStepError: there is none; the message lists the known names
        """
        if name in self.names:
            return self.names.index(name)
        known = ", ".join(self.names) or "none"
        raise UnknownStepError(f"there is no step {name!r}; known steps: {known}")

    def insert_before(self, name: str, *steps: Step) -> Steps:
        """The same sequence with the steps put before the one of that name."""
        return self._edited(self.index(name), 0, steps)

    def insert_after(self, name: str, *steps: Step) -> Steps:
        """The same sequence with the steps put after the one of that name."""
        return self._edited(self.index(name) + 1, 0, steps)

    def replace(self, name: str, *steps: Step) -> Steps:
        """The same sequence with the steps in the place of the one of that name."""
        return self._edited(self.index(name), 1, steps)

    def remove(self, *names: str) -> Steps:
        """The same sequence without the steps of these names."""
        for name in names:
            self.index(name)
        return Steps(step for step in self._steps if step.name not in names)

    def _edited(self, position: int, dropped: int, steps: tuple[Step, ...]) -> Steps:
        return Steps((*self._steps[:position], *steps, *self._steps[position + dropped :]))

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, key: str | int) -> Step:
        return self._steps[key if isinstance(key, int) else self.index(key)]

    def __contains__(self, item: object) -> bool:
        return item in self.names or item in self._steps

    def __eq__(self, other: object) -> bool:
        return self._steps == other._steps if isinstance(other, Steps) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._steps)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            "Steps is immutable: insert_before, insert_after, replace and remove return a new one"
        )

    def __delattr__(self, name: str) -> NoReturn:
        self.__setattr__(name, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return Steps, (self._steps,)

    def __repr__(self) -> str:
        width = max(map(len, self.names), default=0)
        lines = (f"  {n:2} {s.name:{width}}  {s!r}\n" for n, s in enumerate(self._steps, 1))
        return f"Steps(\n{''.join(lines)})"


def _require_step(step: object) -> None:
    if isinstance(step, Step):
        if not isinstance(step.name, str):
            raise SequenceError(f"the name of {step!r} is {step.name!r}; it must be a string")
        return
    if isinstance(step, type) and issubclass(step, Step):
        hint = f"; put an object in, not its class: {step.__name__}()"
    else:
        hint = "; a step is an object of a subclass of daemon_context.Step"
    raise SequenceError(f"{step!r} is not a step{hint}")


def _require_order(step: Step, before: tuple[str, ...], behind: tuple[str, ...]) -> None:
    if step.name in behind:
        raise SequenceError(
            f"two steps are named {step.name!r}; every step needs a name of its own: "
            "use replace(), or set the class's name",
            step=step.name,
        )
    for other, reason in step.after.items():
        if other in behind:
            raise SequenceError(
                f"step {step.name!r} must come after {other!r}: {reason}", step=step.name
            )


def as_steps(steps: Any) -> Steps:
    """The sequence that the option gives.

    :raises OptionError: it is not iterable; SequenceError: it can not work
    """
    if isinstance(steps, Steps):
        return steps
    try:
        members = tuple(steps)
    except Exception as error:
        raise refuse("steps", steps, "a Steps sequence or an iterable of steps") from error
    return Steps(members)

"""`RayExecutor`: the tasks of a study on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

__all__ = ["RayExecutor"]

Task = TypeVar("Task")
Result = TypeVar("Result")


class RayExecutor:
    """Run the tasks of a study as tasks of Ray: on the processes of this machine or on many.

    A task whose worker process or machine dies is begun again elsewhere, as often as `max_retries`
    says. With `store=` it goes on from its last epoch, provided that the store is a path which all
    machines share (NFS or the like; only this process writes the results into it, workers write
    checkpoints); without, it starts over. Results are recorded as tasks finish. They are those of
    one machine, but for rounding: a run does not depend on the others in its task.

    The experiment travels to the workers by value, with the tensors that it closes over. What it
    imports must be there: fdnn, and modules of your own (Ray's `runtime_env` brings them).

    Ray is an extra: `pip install 'fdnn-torch[ray]'`.

    Args:
        num_tasks: how many tasks an arm is split into, at least; as many as the cluster runs at
            once, if left out.
        **ray_options: of a Ray task: `num_cpus` (1 by default: threads of a task), `num_gpus`,
            `max_retries` (3), `resources`, `runtime_env` and others.

    Raises:
        ValueError: `num_tasks` is below 1.
        ModuleNotFoundError: Ray is not installed.

    Example:
        Begin or join a cluster with `ray.init(...)`; left out, Ray begins one on this machine, or
        joins that of the environment variable RAY_ADDRESS.

        >>> from fdnn import study
        >>> executor = study.RayExecutor(num_cpus=4, max_retries=10)  # doctest: +SKIP
        >>> found = study.run(  # doctest: +SKIP
        ...     experiment, arms=arms, seeds=1000, store="/shared/study", executor=executor
        ... )
    """

    def __init__(self, num_tasks: int | None = None, **ray_options: Any):
        if num_tasks is not None and num_tasks < 1:
            raise ValueError(f"`num_tasks` must be at least 1, got {num_tasks}")
        try:
            import ray
        except ModuleNotFoundError as error:
            error.add_note("`RayExecutor` needs the extra ray: pip install 'fdnn-torch[ray]'")
            raise
        self._ray: Any = ray
        self._num_tasks = num_tasks
        self._options = ray_options

    @property
    def num_workers(self) -> int:
        """How many tasks the cluster runs at once, or `num_tasks`."""
        if self._num_tasks is not None:
            return self._num_tasks
        self._begin()
        there = self._ray.cluster_resources()
        wanted = {
            "CPU": self._options.get("num_cpus", 1),
            "GPU": self._options.get("num_gpus", 0),
            **self._options.get("resources", {}),
        }
        return max(1, int(min(there.get(name, 0) // n for name, n in wanted.items() if n)))

    def __call__(
        self, function: Callable[[Task], Result], tasks: Iterable[Task]
    ) -> Iterator[Result]:
        """Yield `function(task)` of all tasks, as they finish.

        Raises:
            ray.exceptions.WorkerCrashedError: the worker of a task died once more than
                `max_retries` times. Tasks that have finished are recorded.
        """
        self._begin()
        shared = self._ray.put(function)  # once, however large the data in it
        remote = self._ray.remote(_call)
        if self._options:
            remote = remote.options(**self._options)
        running = [remote.remote(shared, task) for task in tasks]
        try:
            while running:
                ready, running = self._ray.wait(running)
                yield from self._ray.get(ready)
        finally:
            for task in running:
                self._ray.cancel(task, force=True)

    def _begin(self) -> None:
        if not self._ray.is_initialized():
            self._ray.init()


def _call(function: Callable[[Task], Result], task: Task) -> Result:
    return function(task)

"""Many pieces of work side by side, each on one thread of torch.

How many threads share a sum decides its last bits, and threads that share small sums on
busy cores mostly wait for one another. One thread for each piece, several pieces at once,
gives the same bits whatever the machine, and all its cores.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

MOST = 8  # pieces at a time: each holds memory of its own

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread of torch, so that the bits do not hang on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def side_by_side(
    work: Callable[[T], R],
    items: Iterable[T],
    device: torch.device,
    given_up: Callable[[], None] = lambda: None,
) -> Generator[R]:
    """Results in the order of `items`; as many at a time as torch has threads.

    Args:
        work: safe to call from several threads.
        items: taken in this thread, little ahead of the results.
        device: where `work` computes; only the CPU gains from several at a time.
        given_up: called when no more results are wanted, before what is under way is
            waited for.

    Raises:
        Exception: what `work` raises, in its turn; later pieces are not begun.
    """
    threads = torch.get_num_threads()
    workers = min(threads, MOST) if device.type == "cpu" else 1
    pool = ThreadPoolExecutor(workers, "piece", torch.set_num_threads, (1,))
    under_way: deque[Future[R]] = deque()
    try:
        for item in items:
            under_way.append(pool.submit(work, item))
            if len(under_way) > workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        given_up()
        pool.shutdown(cancel_futures=True)
        # torch keeps the number per thread, but a new thread starts with the last
        torch.set_num_threads(threads)

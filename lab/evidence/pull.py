"""Taking data from a source that may hang, lie about its deadline, or blow up."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass

from lab.core.deadline import Deadline

# Seconds between two looks at whether the reader still wants data.
PATIENCE = 0.2
# Chunks that may wait between source and file, so that a fast source does not fill memory.
BACKLOG = 8

Named = tuple[str, bytes]
Answer = str | bytes | Iterable[bytes] | Mapping[str, str | bytes]


class SourceFailed(Exception):
    """A source raised; wrapped, because it may be of a kind that must not fly through here.

    Args:
        error: what it raised.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, slots=True)
class _End:
    """The source is done.

    Attributes:
        error: what ended it, None when it ended well.
    """

    error: BaseException | None


def pull(
    name: str, source: Callable[[Deadline], Answer], deadline: Deadline, *, grace: float
) -> Generator[Named, None, None]:
    """Run a source on a thread of its own and hand on its data as it comes.

    The thread is what makes a hung source cost its own deadline and no more. It is a daemon
    and is left behind when it does not come back.

    Args:
        name: the piece, for the error message.
        source: called with ``deadline``.
        deadline: after it nothing more is taken.
        grace: seconds beyond the deadline in which the source may report its own expiry, which
            says more than ours.

    Yields:
        Pairs of a log's name (empty unless the source answers with a mapping) and a chunk.

    Raises:
        DeadlineExpired: the source did not end in time.
        SourceFailed: it raised an error of its own.
    """
    chunks: queue.Queue[Named | _End] = queue.Queue(maxsize=BACKLOG)
    unwanted = threading.Event()

    def hand_over(item: Named | _End) -> bool:
        while not unwanted.is_set():
            try:
                chunks.put(item, timeout=PATIENCE)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in _chunks(source(deadline)):
                if not hand_over(item):
                    return
        # pytest's own outcomes derive from BaseException, and a thread has no other way to
        # tell anybody.
        except BaseException as error:
            hand_over(_End(error))
        else:
            hand_over(_End(None))

    threading.Thread(target=work, name=f"evidence-{name}", daemon=True).start()
    limit = Deadline(deadline.remaining + grace)
    received = 0
    try:
        while True:
            try:
                item = chunks.get(timeout=limit.remaining)
            except queue.Empty:
                awaited = f"the end of {name}" if received else name
                raise deadline.expire(awaited, f"{received} bytes") from None
            if isinstance(item, _End):
                if item.error is not None:
                    raise SourceFailed(item.error)
                return
            received += len(item[1])
            yield item
            if limit.expired:
                raise deadline.expire(f"the end of {name}", f"{received} bytes")
    finally:
        unwanted.set()


def _chunks(answer: Answer) -> Iterator[Named]:
    if isinstance(answer, Mapping):
        for name, content in answer.items():
            yield name, encoded(content)
    elif isinstance(answer, str | bytes):
        yield "", encoded(answer)
    else:
        for chunk in answer:
            yield "", chunk


def encoded(content: str | bytes) -> bytes:
    """UTF-8; what has no UTF-8 form (lone surrogates) is kept in escaped form."""
    return content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")

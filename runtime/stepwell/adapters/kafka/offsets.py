"""How far one shard is done: everything below the committed offset is finished, whatever finished in between."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from stepwell.ports.stream import Delivery


class Progress:
    """One shard in one process, from when it was taken until it is given up or starts anew."""

    def __init__(self, *, leaving: bool = False) -> None:
        self.next: int | None = None
        """The offset behind the last record that was received; None: not known yet."""
        self.committed: int | None = None
        """What this process committed last."""
        self.leaving = leaving
        """Nothing of it is received any more."""
        self._order: deque[int] = deque()
        self._unfinished: dict[int, Delivery] = {}
        self._handed_back: set[int] = set()

    def begin(self, offset: int) -> None:
        """Reading starts here, if nothing was received meanwhile."""
        if self.next is None:
            self.next = offset

    def delivered(self, offset: int, delivery: Delivery) -> None:
        """A record was handed out; offsets only grow."""
        self._order.append(offset)
        self._unfinished[offset] = delivery
        self.next = offset + 1

    def passed_over(self, offset: int) -> None:
        """A record was received that nobody has to finish."""
        self.next = offset + 1

    def finish(self, offset: int) -> None:
        """A delivery is done; repeating it is harmless."""
        self._unfinished.pop(offset, None)
        self._handed_back.discard(offset)

    def hand_back(self, offset: int) -> None:
        """A delivery is not done and will not be: the next holder is delivered it."""
        if offset in self._unfinished:
            self._handed_back.add(offset)

    @property
    def safe(self) -> int | None:
        """The offset to commit: that of the lowest unfinished delivery, else of the next record."""
        while self._order and self._order[0] not in self._unfinished:
            self._order.popleft()
        return self._order[0] if self._order else self.next

    @property
    def unfinished(self) -> Sequence[Delivery]:
        """What was handed out and is neither finished nor handed back, in order."""
        return [delivery for offset, delivery in self._unfinished.items() if offset not in self._handed_back]

    @property
    def idle(self) -> bool:
        """Whether all that was handed out is finished or handed back."""
        return len(self._unfinished) == len(self._handed_back)

"""What became of every key of a foreign configuration."""

from dataclasses import dataclass, field
from typing import Literal

Fate = Literal["honoured", "equivalent", "not honoured"]


@dataclass(frozen=True, kw_only=True)
class KeyFate:
    """What became of one key.

    Attributes:
        key: Its place: the file, then the keys that lead to it, with dots between.
        fate: ``honoured``: the plan has its value; ``equivalent``: the plan says the same in
            another way; ``not honoured``: the plan does something else.
        note: How, or why not.
    """

    key: str
    fate: Fate
    note: str

    def __str__(self) -> str:
        return f"{self.key}: {self.note}"


@dataclass
class KeyReport:
    """Collects the fates of keys; a key has the fate that it is given first.

    Attributes:
        fates: In the order in which the keys were met.
        assumed: What was assumed because a key was absent, a sentence each.
    """

    fates: list[KeyFate] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)

    def honour(self, key: str, note: str) -> None:
        """The plan has the key's value."""
        self._add(key, "honoured", note)

    def equate(self, key: str, note: str) -> None:
        """The plan says the same in another way."""
        self._add(key, "equivalent", note)

    def refuse(self, key: str, note: str) -> None:
        """The plan does something else."""
        self._add(key, "not honoured", note)

    def assume(self, sentence: str) -> None:
        """A key is absent."""
        self.assumed.append(sentence)

    def _add(self, key: str, fate: Fate, note: str) -> None:
        if all(known.key != key for known in self.fates):
            self.fates.append(KeyFate(key=key, fate=fate, note=note))

"""Numbers that remember how they were written, for where text is wanted: a study called 007, a run called 1e3."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator


class WrittenInt(int):
    """An integer with the text that it was read from."""

    text: str

    def written_as(self, text: str) -> Self:
        self.text = text
        return self


class WrittenFloat(float):
    """A number with the text that it was read from."""

    text: str

    def written_as(self, text: str) -> Self:
        self.text = text
        return self


def as_written(value: Any) -> Any:
    """A number as the text that it was written as; any other value as it is."""
    if isinstance(value, WrittenInt | WrittenFloat):
        return value.text
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(as_written)]
"""A setting that is text, also where YAML sees a number."""

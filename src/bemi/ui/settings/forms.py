"""What was typed into a form, as what it means: with an error that says which field, or as it was
typed for another try. Pure."""

from typing import Annotated, Any, TypeVar

from fastapi import Form
from pydantic import BaseModel, ValidationError

from bemi.api.asking import Text
from bemi.api.principals import ROLES
from bemi.errors import UsageError

Field = Annotated[Text, Form(max_length=20_000)]
Number = Annotated[int, Form(ge=1, lt=1 << 31)]

_Model = TypeVar("_Model", bound=BaseModel)


def checked(kind: type[_Model], **given: Any) -> _Model:
    """Raises `UsageError`, with nothing of what was given."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        at = ".".join(str(part) for part in first["loc"])
        if first["type"].endswith("too_short"):
            raise UsageError(f"{at}: it is missing") from None
        raise UsageError(f"{at}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None


def role_of(text: str) -> str:
    """The one that a form shows as chosen."""
    return text if text in ROLES else ROLES[0]

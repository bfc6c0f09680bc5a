"""SQLAlchemy 2: engines that send the current context, and the history as a mapped class."""

from bemi.integrations.sqlalchemy.reading import Change, changes_of
from bemi.integrations.sqlalchemy.sending import emit, install

__all__ = ["Change", "changes_of", "emit", "install"]

"""Several sources with a table each, one history, and the file that describes them."""

import os
from collections.abc import Iterable
from pathlib import Path

import psycopg

from bemi import config
from bemi.config import Settings
from tests.support.tracking import ROOT
from tests.support.workers import Worker

TABLE = "create table note (id int primary key, text text)"


class FileWorker(Worker):
    """`bemi run` in a folder with a bemi.toml, which alone says what it works for."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        # The settings are those of its file; what it is started with knows of none.
        super().__init__(Settings(source_url="dbname=nothing"), folder, *arguments)

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("BEMI_")}
        return {**kept, "PYTHONPATH": str(ROOT)}


class Several:
    """`own` and `common` are lines of the file: of each source's table, and before all of them."""

    def __init__(self, folder: Path, destination_url: str, urls: dict[str, str]) -> None:
        self.folder = folder
        self.destination_url = destination_url
        self.urls = urls
        self.common = ""
        self.own = dict.fromkeys(urls, "")
        for url in urls.values():
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute(TABLE)
        self.write_file()

    @property
    def file(self) -> Path:
        return self.folder / "bemi.toml"

    def write_file(self, *, but: Iterable[str] = ()) -> None:
        """At once, as careful people do: a worker never sees half of it."""
        lines = [f'destination_url = "{self.destination_url}"', self.common]
        for name, url in self.urls.items():
            if name not in but:
                lines += [f"[sources.{name}]", f'source_url = "{url}"', self.own[name]]
        new = self.folder / "bemi.toml.new"
        new.write_text("\n".join(lines) + "\n", encoding="utf-8")
        new.rename(self.file)

    def settings(self, name: str) -> Settings:
        return config.load({"source": name}, {}, self.file)

    def write(self, name: str, number: int, text: str = "") -> None:
        with psycopg.connect(self.urls[name], autocommit=True) as conn:
            conn.execute("insert into note values (%s, %s)", [number, text])

    def stored(self, name: str) -> list[int]:
        """The keys of the rows that the history saw created, in order."""
        with psycopg.connect(self.destination_url, autocommit=True) as conn:
            rows = conn.execute(
                "select primary_key::int from bemi.changes where source = %s"
                " order by epoch, commit_position, ordinal",
                [name],
            ).fetchall()
        return [row[0] for row in rows]

    def slot_is_active(self, name: str) -> bool | None:
        """None when there is no slot."""
        with psycopg.connect(self.urls[name], autocommit=True) as conn:
            row = conn.execute(
                "select active from pg_replication_slots where database = current_database()"
            ).fetchone()
        return None if row is None else bool(row[0])

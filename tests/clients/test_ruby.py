"""The gem of packages/ruby, as its users have it: with the real libraries, and PostgreSQL."""

from pathlib import Path

from tests.support import ruby
from tests.support.parts import require
from tests.support.wal import Log


def test_its_own_specs_pass(source_url: str) -> None:
    ruby.ruby()
    said = ruby.run(["rspec", "--fail-fast"], env={"BEMI_TEST_URL": source_url})
    assert ", 0 failures" in said
    assert "pending" not in said


def test_the_gem_works_in_a_project_of_its_own(log: Log, tmp_path: Path) -> None:
    """Built, and installed into an empty folder, without this repository in sight."""
    gem = require("gem")
    built = tmp_path / "bemi.gem"
    ruby.run([gem, "build", "bemi.gemspec", "--output", str(built)])
    home = tmp_path / "gems"
    install = [gem, "install", "--local", "--ignore-dependencies", "--no-document"]
    ruby.run([*install, "--install-dir", str(home), str(built)], cwd=tmp_path)
    (tmp_path / "app.rb").write_text(APPLICATION)
    env = {"DATABASE_URL": log.url, "GEM_PATH": f"{home}:{_system_gems()}", "RUBYLIB": ""}
    said = ruby.run([ruby.ruby(), "app.rb"], cwd=tmp_path, env=env)
    assert said.splitlines()[-1].startswith(str(home))
    assert log.attributed() == [({"user_id": 42}, each) for each in ("pg", "Sequel", "Rails")]


APPLICATION = """
require "bemi"
require "bemi/pg"
require "bemi/sequel"
require "bemi/active_record"
require "bemi/rails"
require "bemi/sidekiq"

url = ENV.fetch("DATABASE_URL")
connection = Bemi::PG.install(PG.connect(url))
sequel = Bemi::Sequel.install(Sequel.connect(url.sub("postgresql:", "postgres:")))
Bemi::ActiveRecord.install
ActiveRecord::Base.establish_connection(url)
Bemi.with_context(user_id: 42) do
  connection.exec_params("insert into todo (task) values ($1)", ["pg"])
  sequel[:todo].insert(task: "Sequel")
  ActiveRecord::Base.connection.execute("insert into todo (task) values ('Rails')")
end
puts Bemi::Change.name, Gem.loaded_specs.fetch("bemi").full_gem_path
"""


def _system_gems() -> str:
    return ruby.run([ruby.ruby(), "-e", "puts Gem.path.join(':')"]).strip()

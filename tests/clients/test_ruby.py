"""The gem of packages/ruby, as its users have it: with the real libraries, and PostgreSQL."""

from tests.support import ruby


def test_its_own_specs_pass(source_url: str) -> None:
    ruby.ruby()
    said = ruby.run(["rspec", "--fail-fast"], env={"BEMI_TEST_URL": source_url})
    assert ", 0 failures" in said
    assert "pending" not in said

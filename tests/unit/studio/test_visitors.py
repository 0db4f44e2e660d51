"""What is a visitor's own, and that no name leads out of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aizheimer.errors import InputError
from aizheimer.studio.visitors import RUNS_EACH, Visitor, inside, is_token, new_token


@pytest.fixture
def ann(tmp_path):
    return Visitor.of(new_token(), root=tmp_path)


def make_run(visitor, words):
    folder = visitor.new_run(words)
    folder.mkdir(parents=True)
    (folder / "edit.json").write_text("{}")
    return folder.name


def test_a_secret_names_one_folder_which_does_not_show_it(tmp_path):
    token = new_token()
    ann, again, bob = (Visitor.of(word, root=tmp_path) for word in (token, token, new_token()))
    assert ann == again
    assert ann.folder != bob.folder
    assert ann.folder.parent == bob.folder.parent == tmp_path / "visitors"
    assert token not in str(ann.folder)
    assert not ann.folder.exists()


@pytest.mark.parametrize("token", [None, "", "short", "../" * 14 + "x", "a" * 42 + "/", "a" * 44, "a" * 42 + "\n"])
def test_what_is_no_secret_is_nobody(tmp_path, token):
    assert not is_token(token)
    with pytest.raises(InputError, match="cookie"):
        Visitor.of(token, root=tmp_path)


NAMES = [
    *("", ".", "..", "../x", "a/b", "a\\b", "/etc/passwd", "C:\\x", ".hidden", "a..b", "x\0", "Ä", "A", "a b"),
    "a" * 101,
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_more_than_a_name_is_refused(ann, name):
    for ask in (lambda: inside(ann.runs, name), lambda: ann.run(name), lambda: ann.file("files", name)):
        with pytest.raises(InputError):
            ask()


@given(st.text(max_size=40))
def test_no_text_leads_out(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp()
    try:
        path = inside(folder, text)
    except InputError:
        return
    assert path.resolve().parent == folder.resolve()


def test_a_link_that_leads_out_is_not_followed(ann, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "edit.json").write_text("{}")
    ann.runs.mkdir(parents=True)
    (ann.runs / "link").symlink_to(outside)
    with pytest.raises(InputError, match="leads out"):
        ann.run("link")
    assert not ann.owns(ann.runs / "link" / "edit.json")


def test_owning_follows_links_and_dots(ann, tmp_path):
    ann.folder.mkdir(parents=True)
    other = Visitor.of(new_token(), root=tmp_path)
    other.folder.mkdir(parents=True)
    for path, owned in [
        (ann.folder / "pictures" / "x.png", True),
        (ann.folder / ".." / other.id / "x.png", False),
        (other.folder / "x.png", False),
        ("/etc/passwd", False),
        ("\0", False),
        (str(ann.folder) + "x/y.png", False),
    ]:
        assert ann.owns(path) is owned, path


def test_runs_are_named_by_their_words_and_listed(ann):
    names = [make_run(ann, words) for words in ("Mrs. Claus", "Mrs. Claus", "<script>", "🎅", "../..")]
    assert names == ["mrs-claus", "mrs-claus-2", "script", "concept", "concept-2"]
    assert sorted(ann.names()) == sorted(names)
    ann.delete("mrs-claus")
    assert "mrs-claus" not in ann.names()
    with pytest.raises(InputError, match="no edit"):
        ann.delete("mrs-claus")


def test_visitors_cannot_keep_any_number(ann):
    for number in range(RUNS_EACH):
        (ann.runs / str(number)).mkdir(parents=True)
    with pytest.raises(InputError, match="delete one"):
        ann.new_run("cat")

"""A suite's own tables in a terminal: few words, no broken ones."""

from rich.console import Console

from aizheimer.reports.suite_tables import ROWS_SHOWN, suite_tables
from tests.unit.proof.builders import suite

FAMILIES = [
    {
        "family": name, "available": True, "ua": 1.0, "shown_unedited": share, "shown_edited": 0.0, "pictures": 20,
        "prompts": count, "ineffective": count // 2, "example": f"{name} of Santa Claus in a long scene in noto style",
    }
    for name, share, count in (("synonyms", 0.5, 20), ("misspellings", 0.25, 20), ("templates", 1.0, 5))
]  # fmt: skip


def printed(rows, *, width=80):
    console = Console(width=width)
    with console.capture() as captured:
        console.print(suite_tables(suite("families", {}, tables={"families": rows}))[1])
    return captured.get()


def test_many_columns_fit_a_narrow_terminal_and_no_name_or_number_is_broken():
    text = printed(FAMILIES)
    assert max(map(len, text.splitlines())) <= 80
    for word in ("misspellings", "ineffective", "unedited", "prompts", "0.250", "1.000"):
        assert word in text


def test_what_is_the_same_in_every_row_is_said_once_below_but_figures_stay():
    text = printed(FAMILIES)
    assert "available: yes; pictures: 20" in text
    assert text.count("yes") == 1
    assert text.count("0.000") == 3
    assert "available" not in text.splitlines()[3]
    few = printed(FAMILIES[:2])
    assert few.count("yes") == 2


def test_rows_that_are_all_alike_are_shown():
    assert printed([{"concept": "cat"}] * 3).count("cat") == 3


def test_longer_tables_say_how_much_more_there_is():
    text = printed([{"concept": f"thing {number}", "group": "things"} for number in range(ROWS_SHOWN + 5)])
    assert "group: things; and 5 more in the file" in text
    assert f"thing {ROWS_SHOWN - 1}" in text
    assert f"thing {ROWS_SHOWN}" not in text


def test_markup_in_names_stays_text():
    assert "[red]cat" in printed([{"concept": "[red]cat"}, {"concept": "dog"}])

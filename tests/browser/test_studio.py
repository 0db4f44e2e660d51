"""The studio as a person uses it: the whole path, a stop, a reload, bad input, a narrow screen, two visitors."""

import urllib.error
import urllib.request

import pytest
from safetensors import safe_open

FAST = "uce"


def forget(visit, concept="Santa Claus", method=FAST):
    visit.fill("concept", concept)
    visit.choose("method", method)
    visit.page.locator("#start").click()


def measured_and_attacked(visit):
    """Measure the edit, and try to bring its concept back, with as few pictures as the page allows."""
    visit.tab("Measure")
    visit.slide("samples", 8)
    visit.page.locator("#evaluate").click()
    figures = visit.wait("#evaluate-card table").inner_text()
    assert "UA" in figures
    assert "%" in figures
    visit.choose("attack", "quantise")
    visit.slide("images", 4)
    visit.page.locator("#go-attack").click()
    rates = visit.wait("#attack-card table").inner_text()
    assert "%" in rates
    visit.drawn("#attack-card img")
    visit.shots_of_both_widths("5-measured")


def added_up(visit):
    """Add up the one edit there is at half its strength, which makes a second one; the slider stays where it was."""
    visit.tab("Combine")
    visit.wait("#part-0")
    visit.slide("part-0", 0.5)
    visit.page.locator("#add").click()
    assert "makes a model forget “Santa Claus”" in visit.wait("#stack-card .az-good").inner_text()
    visit.page.locator("#part-1").wait_for()
    standing = visit.page.locator("#part-0 input[type=number], #part-1 input[type=number]")
    names = [visit.page.locator(f"#part-{number}").inner_text().split()[0] for number in range(2)]
    values = [standing.nth(number).input_value() for number in range(2)]
    assert sorted(zip(names, values, strict=True)) == [("santa-claus", "0.5"), ("santa-claus-2", "0")]
    visit.shots_of_both_widths("6-added-up")


def test_from_a_concept_to_a_lora_that_other_programs_load(visit, tmp_path):
    page = visit.page
    visit.shot("1-first-visit")
    visit.fill("concept", "Santa Claus")
    page.locator("#concept textarea, #concept input").first.blur()
    page.locator("#keep .token").first.wait_for()
    assert "Mrs. Claus" in page.locator("#keep").inner_text()
    visit.shot("2-neighbours")
    forget(visit)
    visit.wait("#now [data-state]")
    visit.wait("#forget-card .az-good")
    assert page.locator("#forget-card .az-sheet img").count() == 8
    visit.drawn(".az-sheet img")
    visit.shot("3-forgotten")

    visit.tab("Compare")
    visit.fill("prompt", "Santa Claus in noto style")
    page.locator("#draw").click()
    visit.wait("#slider img")
    visit.drawn("#slider img")
    sources = page.locator("#slider img").evaluate_all("images => images.map(image => image.src)")
    assert len(set(sources)) == 2
    page.get_by_text("Attention by word").click()
    visit.fill("words", "Santa Claus, style")
    page.locator("#look").click()
    visit.wait("#attention-card .az-maps")
    assert page.locator("#attention-card figure").count() == 2
    visit.shot("4-compared")

    measured_and_attacked(visit)
    added_up(visit)

    visit.tab("Export")
    page.locator("#write").click()
    link = visit.wait("#export-card .az-download")
    visit.shot("7-exported")
    with page.expect_download() as download:
        link.click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    with safe_open(file, "pt") as lora:
        assert any(name.endswith("lora_up.weight") for name in lora.keys())  # noqa: SIM118


def test_a_training_is_watched_reloaded_stopped_and_its_best_state_kept(visit):
    page = visit.page
    forget(visit, method="aizheimer-paper")
    visit.wait("#forget-card svg.chart >> nth=1")
    text = page.locator("#forget-card").inner_text()
    assert "Attention on the target" in text
    assert "Drift of what is kept" in text
    visit.shot("8-training")
    page.reload(wait_until="domcontentloaded")
    visit.ready()
    assert "Santa Claus" in visit.wait("#now [data-state=running]").inner_text()
    visit.wait("#forget-card svg.chart")
    visit.shot("9-reloaded")
    visit.wait("#stop").click()
    visit.wait("#forget-card .az-good")
    assert "best state" in page.locator("#forget-card").inner_text()
    page.locator("#now .az-idle").wait_for()
    visit.shot("10-stopped")


def test_who_waits_can_leave_the_queue(visit, browser, address):
    forget(visit, method="aizheimer-paper")
    visit.wait("#now [data-state=running]")
    other = type(visit)(browser, address)
    forget(other, "cat")
    assert "1 job first" in other.wait("#now [data-state=waiting]").inner_text()
    shown = other.page.locator("#now, #forget-card").evaluate_all("parts => parts.map(part => part.outerHTML)")
    assert len(shown) == 2
    other.shot("11-waiting")
    assert "Santa" not in "".join(shown)  # the page has an example of that name in its fields
    other.wait("#stop").click()
    other.wait("#now .az-idle")
    other.wait("#forget-card >> text=Stopped")
    other.close()
    visit.page.locator("#stop").click()
    visit.wait("#now .az-idle")


def test_bad_input_is_told_and_shown_as_it_was_typed(visit):
    page = visit.page
    page.locator("#start").click()
    visit.wait("text=Concept: nothing is there yet")
    visit.tab("Export")
    page.locator("#write").click()
    visit.wait("text=forget something first")
    visit.tab("Forget")
    evil = "<img src=x onerror=alert(1)>"
    page.on("dialog", lambda dialog: visit.errors.append(f"a script ran: {dialog.message}"))
    forget(visit, evil)
    page.wait_for_function("name => document.body.innerText.includes(name)", arg=evil)
    visit.shot("12-bad-input")
    assert page.locator("img[src='x']").count() == 0
    page.locator("#now .az-idle").wait_for()  # the forgetting of that name has come to its end


def test_a_file_that_is_no_picture_is_refused(visit, tmp_path):
    fake = tmp_path / "cat.png"
    fake.write_bytes(b"<svg onload=alert(1)>")
    visit.page.get_by_text("More", exact=True).click()
    visit.page.locator("#pictures input[type=file]").set_input_files(fake)
    # Its name is there while it is still on its way; the list of files is there when the server has it.
    visit.page.locator("#pictures .file-preview >> text=cat").first.wait_for()
    forget(visit, method="aizheimer-paper")
    # The message is there for ten seconds; a slow machine may take longer between two looks of `wait`.
    visit.page.get_by_text("no PNG, JPEG or WebP picture").first.wait_for()
    visit.shot("13-refused-upload")


def test_a_narrow_screen_shows_everything_below_each_other(narrow):
    page = narrow.page
    for name in ("Forget", "Compare", "Measure", "Combine", "Export"):
        narrow.tab(name)
        page.wait_for_timeout(300)
        assert narrow.fits(), name
        narrow.shot(f"narrow-{name.lower()}")
    narrow.tab("Forget")
    start, shown = page.locator("#start").bounding_box(), page.locator("#forget-card").bounding_box()
    assert shown["y"] > start["y"]
    assert start["width"] > 300


@pytest.mark.parametrize(
    "path", ["gradio_api/file=/etc/passwd", "gradio_api/proxy=http://example.com", "studio/runs/x"]
)
def test_nothing_else_of_the_machine_is_served(address, path):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}/{path}", timeout=30)

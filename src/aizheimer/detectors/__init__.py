"""Images in, opinions out: the judges that say what a picture shows.

A judge knows nothing of prompts, methods or edits. It may answer "none of these" (``None``), so that a blur or a
blank page is never counted as some neighbour of the concept.
"""

NO_PICTURE = "no picture"
"""The answer to a picture without a single lit pixel, which is what a model draws whose numbers are none (NaN).

It is no name of anything, so that it is never right; and whoever counts what is forgotten must not count it."""

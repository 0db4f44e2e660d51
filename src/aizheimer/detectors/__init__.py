"""Images in, opinions out: the judges that say what a picture shows.

A judge knows nothing of prompts, methods or edits. It may answer "none of these" (``None``), so that a blur or a
blank page is never counted as some neighbour of the concept.
"""

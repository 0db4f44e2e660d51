"""What was forgotten and what was kept: the same prompts and seeds, before and after.

``evaluate`` sees a pipeline, an edit and a concept; it does not know which method made the edit.
"""

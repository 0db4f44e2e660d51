"""Can it be brought back: attacks on an edit, one file each."""

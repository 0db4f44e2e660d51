"""Search for the settings of an edit that meet a demand and cost the least."""

"""The suites: one question to an edit each, with the parameters that published figures use."""

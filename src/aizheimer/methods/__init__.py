"""One file for each unlearning method: its hyper-parameters and how it is put together."""

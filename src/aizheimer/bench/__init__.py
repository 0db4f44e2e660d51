"""Many edits made and measured alike: methods x concepts x seeds as one job list that can be stopped and resumed."""

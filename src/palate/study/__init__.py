"""Ask people which image they prefer: questions, answers and the table of choices."""

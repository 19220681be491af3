"""Images, choices, scores and labels: four tables, read, checked, split and audited."""

"""Accuracy, agreement and intervals: columns in, frozen results with their settings out."""

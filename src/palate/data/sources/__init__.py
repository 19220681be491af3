"""One reader per source of images and choices; each gives the tables and a report of itself."""

"""Write a data set in the shapes that other tools read: HPD v1 and v2, ImageReward, pairs, tars, Parquet."""

"""What is inside an image: partitions, file systems, how much is used."""

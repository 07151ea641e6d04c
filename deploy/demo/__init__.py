"""The demonstration: `make demo` takes one real image from a file to three disks and proves every byte."""

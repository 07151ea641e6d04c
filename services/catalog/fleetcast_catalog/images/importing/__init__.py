"""From a file or an upload to stored chunks."""

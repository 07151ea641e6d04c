"""What hears one group: pure reception, and the threads around it."""

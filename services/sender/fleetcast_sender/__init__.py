"""The sender: transmissions over UDP multicast, their repair, their rate, and chunks by unicast."""

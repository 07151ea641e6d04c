"""Machines that start from the network: what each is answered, who is admitted, how far each got."""

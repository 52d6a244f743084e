"""What model code may call, as the host answers it."""

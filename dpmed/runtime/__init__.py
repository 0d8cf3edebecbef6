"""What lies between dpmed and the machine: compiler, memory, processes."""

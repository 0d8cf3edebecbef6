"""The interface between dpmed and the machine: compiler, memory, processes."""

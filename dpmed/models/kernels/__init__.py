"""How convolutions are computed: the ways between which layers and their gradients choose."""

config = {
    "hidden_size": 256,
    "H_layers": 2,
    "L_layers": 2,
    "H_cycles": 2,
    "L_cycles": 1,
    "halt_max_steps": 3,
    ...
}

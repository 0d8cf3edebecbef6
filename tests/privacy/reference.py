"""Values to test against, of three settings of the paper (Ziller et al., 2024) at several noise multipliers.

Computed apart from dpmed: numerical composition of the privacy-loss distribution on a pessimistic grid of a 20,000th of
its spread, right to about 0.01 %, two of them checked by Monte Carlo. Columns: setting, N, expected batch size, steps,
σ, δ, tight ε, worst-case risk and relaxed risk at prior 1/N.
"""

_TABLE = """
HAM10000,8012,2048,300,20.0,8e-07,0.946159,0.000290452,0.000129078
HAM10000,8012,2048,300,5.0,8e-07,4.41921,0.00287553,0.00021126
HAM10000,8012,2048,300,3.222,8e-07,7.47612,0.0122459,0.000425754
HAM10000,8012,2048,300,1.643,8e-07,18.3186,0.210121,0.00701026
HAM10000,8012,2048,300,1.1,8e-07,34.3448,0.76281,0.124747
HAM10000,8012,2048,300,0.9,8e-07,48.8884,0.960003,0.450028
HAM10000,8012,2048,300,0.7,8e-07,79.2265,0.999592,0.944031
RadImageNet,970000,3328,14550,3.0,8e-07,0.587745,2.06771e-06,1.21401e-06
RadImageNet,970000,3328,14550,1.2,8e-07,1.89884,7.66862e-06,2.8998e-06
RadImageNet,970000,3328,14550,0.7,8e-07,6.03282,0.000161741,3.66229e-05
RadImageNet,970000,3328,14550,0.55,8e-07,13.7245,0.00444868,0.000823759
RadImageNet,970000,3328,14550,0.45,8e-07,29.7867,0.114887,0.0301973
RadImageNet,970000,3328,14550,0.35,8e-07,81.9828,0.921118,0.747059
MSDLiver,106,1,53000,20.0,8e-07,0.439444,0.0125636,0.00953212
MSDLiver,106,1,53000,5.0,8e-07,1.97799,0.0281253,0.0111152
MSDLiver,106,1,53000,2.0,8e-07,5.85779,0.116903,0.0248991
MSDLiver,106,1,53000,1.0,8e-07,17.282,0.677368,0.22544
MSDLiver,106,1,53000,0.6,8e-07,67.8441,0.999998,0.996899
"""

ROWS = [
    (name, int(n), int(b), int(t), *map(float, rest))
    for name, n, b, t, *rest in (line.split(",") for line in _TABLE.strip().splitlines())
]
IDS = [f"{row[0]}-{row[4]:g}" for row in ROWS]

"""Defines every tolerance of a comparison, with the measurement behind it."""

from __future__ import annotations

K = 32.0
"""The largest ratio that passes.

Measured with tests/parity/test_criterion_evidence.py, which makes random right models and wrong ones that are hardest
to detect (weights x0.001 to x4, H 1-64, L 1-4, up to 80 steps, both directions, projections, lengths, three dtypes);
run it with ``--models`` for its numbers.  For 60 models, 4 479 right tensors had a median ratio of 0.2 and a largest
ratio of 2.5, and all 3 331 wrong models were rejected.

An earlier sample of 300 float32 models had 6 714 right tensors (median 0.13, p99 1.5, largest 6.5) and 600 wrong
models, each above 90, and above 1000 except for weights of a few thousandths, where all gates are nearly 0.5 (hence
the amplified inputs and weights of such models).
"""
EPSILON = {"float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}
"""The spacing of numbers at 1, by dtype: the floor of the bound, on the gates' scale."""
NATIVE_EPSILON = {**EPSILON, "float64": EPSILON["float32"]}
"""The same for PyTorch's native run, which is in float32 for a float64 model."""
CHAOS = 2.0**13
"""PyTorch's own relative error, in units of EPSILON, above which a run is inconclusive (1e-3 in float32).

Past it right files differ as much as wrong ones.  Single steps of such models, from the states of the float64 run,
had ratios of at most 1.9 in right files and of at least 1310 in wrong ones.
"""
GROWN = 64.0
"""PyTorch's own error, in units of EPSILON, from which roundings are known to grow.

For trained models of guitar amplifiers, single runs in float32 were off by 1e-5 to 5e-3 at 128 steps, and right files
by up to 200 times the error of one run; the largest error of several runs with different rounding varied far less.
"""
COARSEST = 1 / (2 * K)
"""The same relative to the output's largest number; above it, the bound is at least half of that number (float16)."""
LARGEST_FLIPPED_SHARE = 0.02
"""The share of integers that may differ where PyTorch's two precisions agree: an argmax of two nearly equal numbers."""
ROUNDINGS = 4
"""How often extreme inputs are perturbed, since in a single run PyTorch's own error may be nearly 0 by chance."""
EXTREME_ROUNDINGS = 16.0
"""The factor by which the rounding of the largest state counts more if states are extreme.

Right models with trained or large weights were off by up to 48 roundings of it there, since a rounding in one step
is multiplied in the next; wrong ones are off by the state itself.
"""
AMPLIFIED = {"weight_ih": 1.0, "weight_hh": 1.0, "bias": 0.5, "weight_hr": 1.0, "dense": 2.0}
"""The root mean square, with amplified weights, of each part of a gate's sum, of h and of other layers' outputs."""
AMPLIFIED_HALF = {"weight_ih": 2.5, "weight_hh": 1.5, "bias": 1.0, "weight_hr": 1.0, "dense": 2.0}
"""The same in half precision, in which only large sums distinguish one sigmoid from another."""
LEAST_WEIGHT_GAIN = {"float16": 2.0, "float32": 16.0, "float64": 16.0}
"""The gain below which a model's weights are not amplified, by its dtype."""
LEAST_INPUT_GAIN = 4.0
"""The gain above which a model's inputs are amplified."""
LARGEST_INPUT_GAIN = {"float16": 2.0**8, "float32": 2.0**12, "float64": 2.0**12}
"""float16 ends at 65504, and the products of an amplified input must stay below it."""
LEAST_TANH = 0.05
"""The |tanh c| below which h = o tanh c does not determine o: the quotient amplifies its rounding error 20 times."""
SATURATION_REMAINDER = 0.5
"""The largest share of a saturation error that remains when 8-bit products are summed in full.

Saturating models were off by 0.14 to 0.29, and by 0.0065 when summed in full (a share of 0.05 at most); the error of
the int8 weights themselves does not change.
"""
SAME_CAUSE_FACTOR = 8.0
"""The largest factor between an error on CUDA and the simulated one of TF32 for TF32 to be the cause.

A simulation rounds as TF32 does, but sums in another order; no other cause in the catalogue gives errors near it,
since float32's are 2^13 times smaller and wrong graphs' larger.
"""

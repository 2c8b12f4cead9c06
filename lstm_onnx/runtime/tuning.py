"""The runtime's constants that affect speed or memory, with the measurements behind their values.

Unless stated otherwise, measured in November 2026 with ONNX Runtime 1.31.1 on 2 cores (AVX2); I, H and L are an
LSTM's input_size, hidden_size and num_layers.  Constants without a figure bound memory, and were not tuned.
"""

from __future__ import annotations

# --- threads ------------------------------------------------------------------------------------------------------

SMALL_ROW_FLOPS = 5e6
"""A step of one sequence up to this size runs on one thread.

Without spinning, ONNX Runtime's threads synchronize at every time step of an LSTM, which costs more than they save.
Two threads relative to one: 1.5 times the time for a step of I80 H256 L2 (2.1e6), 1.2 for 50 steps of it, and 0.86
for a step of I512 H512 L2 (8.4e6), whose weights exceed one core's cache (5e6 are about 10 MB of weights)."""
SMALL_CALL_FLOPS = 3e7
"""A call with several sequences up to this size runs on one thread.

Two threads relative to one, I80 H256 L2: 1.3 times the time for 8 rows (1.7e7), 0.9 for 32 rows (6.7e7), 0.6 for 50
steps of 8 rows."""
PART_FLOPS = 1.6e7
"""A pool's batch is divided among threads so that each part has at least this many FLOPs per step.

Handing a part to another thread takes about 50 us; at one core's 80 GFLOP/s this many take 200 us."""
PART_SECONDS = 4e-4
"""The same for a module, whose FLOPs are unknown: seconds of its first run per part; 8 times the 50 us above."""
WAKE_FLOPS = 8e6
"""A pool's caller computes the first part of a batch, which is larger than the others by about this many FLOPs.

The others start 25 us later and take 30 us longer to return.  A step of 64 rows, I80 H256 L2, takes 0.95 times as long
divided into 34 and 30 as in halves."""

# --- bindings -----------------------------------------------------------------------------------------------------

MAX_BOUND_CALL_BYTES = 2**18
"""Inputs and outputs up to this size are copied into bound buffers instead of being passed each time.

Binding saves about half of a small step (I64 H64 L1: 22 to 12 us); above this size the copy costs more."""
MAX_CALL_BINDINGS = 16
"""Bindings per thread for `Model.run`."""
MAX_UNBINDABLE_KEYS = 512
"""Input signatures that are remembered as unbindable."""
MAX_STREAM_BINDINGS = 8
"""Chunk shapes that a stream keeps bound."""
MAX_CUDA_GRAPHS = 128
"""CUDA graphs per session, two for each chunk shape of each stream; further ones run without."""
MAX_POOL_BINDINGS = 64
"""Batch shapes that a pool keeps bound, enough for all shapes of most programs at both offsets."""
MAX_POOL_BINDING_BYTES = 2**20
"""A pool's larger batches are not bound: their computation outweighs what a binding saves."""
MAX_KNOWN_OUTPUTS = 512
"""Batch shapes whose output shapes a pool remembers."""
MAX_KNOWN_SIGNATURES = 512
"""Request signatures that a batcher remembers as validated."""

# --- map ----------------------------------------------------------------------------------------------------------

CALIBRATION_ROWS = (1, 2, 4, 6, 12, 24)
"""Batch sizes that a calibration tries.

ONNX Runtime multiplies 6 rows at a time with AVX2, 12 with AVX-512 and 4 on ARM; a remainder costs almost as much as
a full tile (8 rows reach 0.84 of peak, 6 rows 0.91)."""
RUN_ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""The numbers of rows of a run, besides the largest allowed one and all sequences that may run together.

Of 512 sequences (2 to 400 steps, at most 24 rows) runs cost 0.7% more than with every number of rows, and the plan
takes 1.1 us for each sequence instead of 2.5."""
EQUAL_RATE = 1.04
"""Rates within this factor count as equal: the smaller batch needs less memory and ends sooner."""
WORSE_RATE = 1.1
"""A calibration stops once a row costs this much more than at the previous batch size."""
CALIBRATION_SECONDS = 0.25
"""Time limit of a calibration, without its last run."""
CALIBRATION_REPEATS = 5
CALIBRATION_STEPS = (4, 64)
"""Fewest and most time steps of a calibration run."""
CALIBRATION_STEP_ROWS = 32
"""All calibration runs at one time step cost about as much as this many steps of one row."""
CALIBRATION_SEQUENCES = 64
"""Fewest sequences for which a calibration pays off."""
CALL_SECONDS = 5e-5
"""Cost of a run that depends on neither rows nor steps: the call, and the Python code around it."""
RUN_SECONDS = 6e-4
"""Runs of small sequences get so many rows that they take this long.

A thread of `map` waits for the others' Python code after each run.  Of sequences of 2 to 400 steps, times as many per
second as with 24 rows: I4 H3 1.13, I1 H8 1.16, I8 H16 bidirectional 1.15, I16 H32 1.19 (two threads)."""
THREADS_SECONDS = 3e-3
"""If a call takes less, all of its sequences run in the caller's thread, and so does a single run.

Starting two threads takes 0.2 ms, and their first runs in ONNX Runtime 0.1 ms more than others."""
DEFAULT_ROWS_CPU, DEFAULT_ROWS_CUDA = 6, 64
"""Rows of a run without a calibration: one AVX2 tile; on a GPU a few rows take about as long as one."""
DEFAULT_LOOK_AHEAD = 1024
"""Sequences that map holds at once, to sort them by length.  Of 256 sequences of log-normal length (2 to 400 steps,
I80 H256 L2 bidirectional), sorted micro-batches ran 3.4 times as many steps per second as arrival order."""
MAX_LOOK_AHEAD_BYTES = 2**28
"""Bytes of these sequences and their results."""
MAX_WORKERS = 1024

# --- sessions -----------------------------------------------------------------------------------------------------

CPU_ARENA = False
"""ONNX Runtime's memory arena keeps memory for the largest shape so far: with varying lengths a third more than is in
use.  Without it, runs took 0.93 (a small step) to 1.015 times as long."""
MAX_FOLDED_BYTES = 2**28
"""Limit of constant folding: a model of 68 bytes can otherwise allocate 1 GiB when it is opened."""
MAX_THREADS = 1024
MAX_TRIAL_ELEMENTS = 2**26
"""Inputs with more elements are not created for a trial run."""
MAX_DRAWN_ELEMENTS = 2**28
"""The same where the file is compared with another; as float64 these take 2 GiB."""
MAX_FLOAT64_TRIAL_ELEMENTS = 2**20
"""The same for the run that shows whether a float64 model can run at all."""

# --- streams ------------------------------------------------------------------------------------------------------

CHUNK_TOLERANCE = 64.0
"""Chunks may differ from the whole sequence by this many times the effect of rounding the inputs.

Over 400 random models (tests/runtime/test_chunk_check.py) at most 9; operators that combine time steps outside of the
states give 1000 and more."""
PADDING_TOLERANCE = {"float16": 3e-2}
DEFAULT_PADDING_TOLERANCE = 2e-5
"""Relative difference between a sequence alone and padded; float16 rounds at 5e-4, float32 at 6e-8.  A mean over time
differs by its share of padding, but a convolution with small weights before the layers by 1e-4 alone; where rounding
makes more than that, sequences of other lengths are only run in batches of their own."""

# --- interpreter exit ---------------------------------------------------------------------------------------------

EXIT_POLL_SECONDS = 0.002
EXIT_QUIET_SECONDS = 0.01
"""No thread may have been seen inside ONNX Runtime for this long."""
EXIT_UNCLEAR_SECONDS = 0.1
"""How long to wait for a thread in this package that may be about to call ONNX Runtime."""

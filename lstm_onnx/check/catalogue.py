"""The rules: LO1xx the file, LO2xx sizes, LO3xx states and lengths, LO4xx the operators, LO5xx providers."""

from __future__ import annotations

from .rule import Rule

_FILE = (
    Rule(
        "LO101",
        "valid-onnx",
        "error",
        "onnx's own checker refuses the file",
        "What the standard does not allow, one runtime may still run and the next one refuses, or reads in another "
        "way.  Shapes and types are checked too, and that external data is there.",
        "export the model again",
    ),
    Rule(
        "LO102",
        "metadata",
        "error",
        "lstm-onnx wrote the file, and its metadata is missing, damaged or cut off",
        "The metadata says which output feeds which state, and what states start from.  A file that is cut off just "
        "behind its graph is still a sound model: it runs, and carries no state any more.",
        "export or copy the model again",
    ),
    Rule(
        "LO103",
        "external-data",
        "error",
        "weights lie outside the model's folder, are missing, or are shorter than the model says",
        "A location with .., an absolute one and a symbolic link lead wherever the file's author wants; onnx and ONNX "
        "Runtime refuse them, so the model does not open.  Nor does it when it is moved without the file beside it.",
        "put the weights into a plain file in the model's own folder, or export again with the weights inside",
    ),
    Rule(
        "LO104",
        "unknown-operator",
        "error",
        "ONNX Runtime does not know an operator, or not in this opset",
        "An operator of a custom domain needs the library that it was made for, which is not part of the file.  ONNX "
        "Runtime refuses to open the model.",
        "export without the custom operator, or ship it as a local function of the model",
    ),
    Rule(
        "LO105",
        "contrib-operator",
        "info",
        "an operator is ONNX Runtime's own and not part of ONNX",
        "Such a file runs in ONNX Runtime alone.  It is what its optimiser and its quantiser write.",
        "keep the file from before the optimisation for other runtimes",
    ),
    Rule(
        "LO106",
        "resource-bomb",
        "error",
        "constants in the file ask for huge tensors or for endless loops",
        "A file of 68 bytes with one ConstantOfShape takes a GiB when it is opened, and a Loop whose condition never "
        "changes runs for ever.  Such a file is not opened: it is told from shapes and constants alone, where a value "
        "that grows from round to round of a Loop is not foreseen.",
        "do not run a file from a source that you do not trust; if the size is meant, --ignore LO106",
    ),
    Rule(
        "LO107",
        "initializer-input",
        "warning",
        "weights are inputs of the graph as well",
        "A caller may then give other weights at any run, so ONNX Runtime folds no constants and fuses little.  Files "
        "of IR version 3 had to be so.",
        "export with a newer IR version, or take the initializers out of graph.input",
    ),
    Rule(
        "LO108",
        "doubled-weights",
        "warning",
        "the same weights are stored more than once",
        "Exporters write the weights of a module that is called twice, or whose parameters are tied, once for each "
        "call: the file and the memory that it takes are up to twice as large.",
        "export with lstm-onnx, which stores them once, or let the nodes share one initializer",
    ),
    Rule(
        "LO109",
        "non-finite-weights",
        "error",
        "a weight is NaN or infinite",
        "Training diverged, or a cast to float16 overflowed.  ONNX Runtime's LSTM on the CPU does not even carry a NaN "
        "on as PyTorch does: what comes out can look like numbers.",
        "export from a checkpoint before it diverged; as float32 where float16 overflowed",
    ),
    Rule(
        "LO110",
        "training-mode",
        "error",
        "Dropout or BatchNormalization is in training mode",
        "ONNX Runtime obeys: Dropout with training_mode true zeroes other numbers at each run, and "
        "BatchNormalization takes the statistics of the batch that it is given, so a row's result depends on the rows "
        "beside it (of equal rows it makes zeros).",
        "call module.eval() before the export",
    ),
    Rule(
        "LO111",
        "random-operator",
        "warning",
        "an operator draws random numbers",
        "Two runs on the same input differ, and parity with PyTorch cannot be shown: their generators differ.",
        "make the noise an input of the model",
    ),
    Rule(
        "LO112",
        "crashing-node",
        "error",
        "opening the file ends the process, or does not come to an end",
        "onnx and ONNX Runtime trust a node to be well-formed: one that is not can make them read behind the end of a "
        "list, fail an assertion, loop for ever or ask for all memory there is, and no exception comes of that.  The "
        "file is therefore read, checked, opened and run in a process of its own, with limits of time and memory.  "
        "What that process was doing when it ended is told, and what the other rules had found by then.  This rule "
        "cannot be ignored: whoever opens the file otherwise may end in the same way.",
        "do not open such a file outside of a process that may end; the stage tells where to look for the node at "
        "fault; if it is merely slow, --time-limit gives it longer",
    ),
)
_SIZES = (
    Rule(
        "LO201",
        "dynamic-axes",
        "error",
        "batch or time is fixed where it should be open",
        "The model then runs at the size of the example that it was traced with, and at no other.  torch.onnx.export "
        "of torch 2.13 does so to a one-layer nn.LSTM without a word.",
        "a size was baked in; export again with dynamic batch and time",
    ),
    Rule(
        "LO202",
        "frozen-literal",
        "error",
        "a Reshape or Expand to constants loses an open axis",
        "x.view(32, -1) or h.expand(2, 8, n), traced with Python's own numbers, leave these in the graph as literals: "
        "other sizes fail, or worse, mix one sequence with the next.",
        "use x.size(0) or -1 in the module's code, and export again with dynamic batch and time",
    ),
    Rule(
        "LO203",
        "frozen-slice",
        "warning",
        "a Slice or a Gather by constants cuts an open axis where the example ended",
        "x[:, :100] and x[:, 99] may be meant, and may be the length of the example: of longer sequences the rest is "
        "then left out silently, and shorter ones fail.",
        "take the size from a tensor (x.size(1), or -1 for the last step); --ignore LO203 where the cut is meant",
    ),
    Rule(
        "LO204",
        "state-batch",
        "error",
        "an initial state has a fixed batch beside an input whose batch is open",
        "The operator does not broadcast states: ONNX Runtime says `Input initial_h must have shape {1,2,3}. Actual: "
        "{1,1,3}` as soon as the batch is another one.",
        "make the states of x.size(0) in the module's code, or export again with dynamic batch and time",
    ),
    Rule(
        "LO205",
        "unnamed-axes",
        "warning",
        "an open axis of an input has no name, or the batch has another name in each input",
        "Names tell a runtime which axes have one size: without them states cannot be filled in by the batch of the "
        "input, and one that does not fit is noticed inside the graph alone.  tf2onnx names each axis apart.",
        "name the axes at the export (dynamic_shapes, dynamic_axes)",
    ),
)
_STATES = (
    Rule(
        "LO301",
        "states-paired",
        "error",
        "a state and the output that feeds it do not fit",
        "A stream gives each run's final states to the next.  Where names, dtypes or shapes of a pair differ, or h and "
        "c are swapped, it fails or, worse, goes on with wrong numbers.",
        "export the model again",
    ),
    Rule(
        "LO302",
        "loose-states",
        "warning",
        "state inputs that no metadata pairs with outputs",
        "Nothing in ONNX says which output feeds which state, so the file cannot be streamed as it is.",
        "name the output that feeds each state, as the file calls them: lstm_onnx.load(file, states={STATE: OUTPUT}), "
        "or as JSON in the file's metadata, lstm_onnx.states",
    ),
    Rule(
        "LO303",
        "lost-state",
        "warning",
        "an LSTM's c0 is an input, and nothing hands its final cell state out",
        "The next chunk of a stream cannot go on from where this one ended: no other output holds the cell state.",
        "export with (hn, cn) among the outputs",
    ),
    Rule(
        "LO304",
        "h0-without-c0",
        "warning",
        "an LSTM takes only one of its two initial states",
        "The other one is zeros (ONNX Runtime does so, as measured), which nn.LSTM has no way to ask for: most often a "
        "name was lost on the way.",
        "give both states, or none",
    ),
    Rule(
        "LO305",
        "lengths-type",
        "error",
        "sequence_lens is not int32",
        "ONNX allows int32 alone here, and ONNX Runtime refuses to open a file with int64, which is what PyTorch's "
        "lengths are.",
        "put a Cast to int32 before the operator",
    ),
    Rule(
        "LO306",
        "lengths-constant",
        "warning",
        "sequence_lens is a constant",
        "The lengths of the example were baked in: every later batch is read as if it had them, and a batch of another "
        "size, or sequences shorter than they say, fail.",
        "make the lengths an input of the model",
    ),
    Rule(
        "LO307",
        "lengths-ignored",
        "warning",
        "an operator has sequence_lens, and what reads its output takes padding for data",
        "Behind its length a sequence's output is zeros.  Its last step is then zeros and not the last state; a mean "
        "divides by the padded time; a maximum is never below zero; a softmax over time gives padding a weight; and "
        "an LSTM behind it that has no lengths walks through the padding: its final states are those of the padding, "
        "and a reverse pass begins there.  Results then depend on what a sequence was batched with.",
        "take hn for the last step, or mask by the lengths before the reduction; give each layer the lengths",
    ),
    Rule(
        "LO308",
        "ignored-input",
        "warning",
        "the numbers of an input reach no output: lengths or states that are given are ignored",
        "Whoever calls the model believes that they count.  A trace loses an input that the code reads with .tolist(), "
        ".item() or len(), and states that the module keeps in an attribute instead; its shape may still be used.",
        "export again with code that uses it as a tensor, or leave it out of the model's inputs",
    ),
    Rule(
        "LO309",
        "not-streamable",
        "warning",
        "the file has states, and chunks of a sequence give other numbers than the whole",
        "A stream carries what the recurrent nodes remember.  Where steps meet elsewhere as well (a convolution, a "
        "mean or a softmax over time, a reverse direction, positions, a recurrent node without states of its own), "
        "the first steps of each chunk miss what came before.  The runtime opens no stream of such a file.",
        "run whole sequences, or export a module in which steps meet in its states alone",
    ),
)
_OPERATOR = (
    Rule(
        "LO401",
        "layout",
        "error",
        "an LSTM, GRU or RNN has layout=1 (batch first)",
        "It is valid ONNX since opset 14, and ONNX Runtime refuses it when the session is created.",
        "use layout 0 and a Transpose before and behind the operator",
    ),
    Rule(
        "LO402",
        "weight-shapes",
        "error",
        "W, R, B or P contradict hidden_size, direction or the input",
        "onnx's checker does not look, and ONNX Runtime opens such a file: it fails at the first run.",
        "write the weights as W (D, 4H, I), R (D, 4H, H), B (D, 8H), P (D, 3H), and the attributes to fit",
    ),
    Rule(
        "LO403",
        "attributes",
        "error",
        "direction, activations or hidden_size is not possible",
        "An unknown direction or activation, too few activations, or no hidden_size at all: ONNX Runtime refuses the "
        "file when the session is created, and onnx's checker accepts it.",
        "give three known activations a direction (one for an RNN, two for a GRU), and hidden_size",
    ),
    Rule(
        "LO404",
        "clip",
        "warning",
        "an LSTM's clip is so small that the cell state may reach it",
        "ONNX clips what goes into every activation.  ONNX Runtime does so for the gates and not for the cell state "
        "on its way to h (its issue 27224; measured on 1.31 and 1.32), so that it and other runtimes differ where "
        "the cell grows beyond the bound.",
        "train without the clip, or leave it out where no cell state comes near it",
    ),
    Rule(
        "LO405",
        "activation-numbers",
        "warning",
        "ThresholdedRelu, Affine or ScaledTanh without its activation_alpha or activation_beta",
        "ONNX Runtime takes 0 for what is not given, where ONNX says 1.0 for ThresholdedRelu and nothing for the other "
        "two: an Affine or ScaledTanh of zeros makes zeros alone (measured on LSTM, GRU and RNN).",
        "write activation_alpha and activation_beta into the node, one for each activation that takes it",
    ),
)
_PROVIDERS = (
    Rule(
        "LO501",
        "provider",
        "error",
        "a node is not on the provider that was asked for",
        "ONNX Runtime moves what a provider lacks to the CPU without a word, and copies to and fro at each run.  Here "
        "the open session is asked where each node went.  With --require also the operators on shapes, which ONNX "
        "Runtime keeps on the CPU by design, have to be there.",
        'export at opset 21 or below without what CUDA lacks, or use provider "auto"',
    ),
    Rule(
        "LO502",
        "runnable",
        "error",
        "the model does not open, or does not run at some size",
        "It is run at several batches and times, chosen so that no size that was baked in can equal all of them, and "
        "its outputs have to have the shapes that the file declares.",
        "a size was baked in; export again with dynamic batch and time",
    ),
    Rule(
        "LO503",
        "opset-on-cuda",
        "warning",
        "a recurrent operator of opset 22 or later",
        "LSTM, GRU and RNN were versioned anew at opset 22.  ONNX Runtime's CUDA provider may not register that "
        "version (onnxruntime pull request 27728): the node then runs on the CPU.  Opsets 14 to 21 are safe.",
        "export at opset 21 or below; the default is 18",
    ),
    Rule(
        "LO504",
        "variant-on-cuda",
        "warning",
        "a variant that CUDA lacks: clip, input_forget, peepholes, other activations, a GRU's reset first, int8",
        "ONNX Runtime's CPU provider computes them (clip: see LO404); its CUDA provider leaves them to the CPU, and "
        "copies to and fro at each run.  It has RNNs with tanh alone, and GRUs with linear_before_reset=1, PyTorch's "
        "kind.",
        "run it on the CPU (--provider cpu)",
    ),
    Rule(
        "LO505",
        "loop-on-cuda",
        "info",
        "a Scan or Loop computes step by step",
        "On CUDA the host starts each step's kernels, so small steps are slow, and CUDA graphs refuse the model.  On "
        "the CPU it is the faster way for a projected LSTM.",
        "run it on the CPU (--provider cpu), which has no such cost; for CUDA, write the loop as one LSTM, GRU or RNN "
        "operator where it is one",
    ),
    Rule(
        "LO506",
        "float64-on-cpu",
        "error",
        "a recurrent operator in float64 on the CPU",
        "ONNX Runtime's CPU provider opens the file, and says at the first run that its LSTM does not support double "
        "yet.  A Scan in float64 runs.",
        'export it as float32, or use provider "cuda"',
    ),
    Rule(
        "LO507",
        "float16-on-cpu",
        "info",
        "a recurrent operator in float16 on the CPU",
        "ONNX Runtime puts Casts around a float32 kernel: it is no faster there, and 2e-4 to 3e-4 off.",
        "export as float32 for the CPU; float16 halves the file and is for CUDA",
    ),
    Rule(
        "LO508",
        "bfloat16",
        "error",
        "a recurrent operator in bfloat16",
        "ONNX allows it since opset 22, and ONNX Runtime has no kernel for it: it refuses the file.",
        "export as float32, or as float16 for CUDA",
    ),
    Rule(
        "LO509",
        "int8-saturation",
        "warning",
        "int8 weights on a CPU whose int8 products saturate",
        "Without VNNI, AVX2 and AVX512 add two products of uint8 and int8 in 16 bits, which saturates silently: errors "
        "of 0.14 to 0.29 on plain models, where 0.007 is usual.",
        "load with the session option session.x64quantprecision=1, or quantise with reduce_range=True",
    ),
)
RULES: tuple[Rule, ...] = (*_FILE, *_SIZES, *_STATES, *_OPERATOR, *_PROVIDERS)
"""Every rule, in the order of their ids."""

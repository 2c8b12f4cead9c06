"""`Model`: a loaded model, called like nn.LSTM, or run by the names of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, overload

from ..terminal_text import one_line
from .loaded_model import LoadedModel
from .lstm_call import call_lstm
from .run import run_model

if TYPE_CHECKING:
    import torch

    from .conversion import Array, ArrayLike
    from .pool.pool import Pool
    from .stream import Stream


class Model(LoadedModel):
    """An open model.  Created by `load`; a context manager that closes it.

    Attributes:
        path, file: the file, as passed to `load`; and its absolute path, with links resolved.
        fingerprint: the file's fingerprint when it was loaded; None if no other session of it must be opened.
        provider, device_id: "cpu" or "cuda", where it runs; and which GPU, from 0.
        threads, spin, cuda_graph: as passed to `load`.
        session: the ``onnxruntime.InferenceSession``.
        run_options: an ``onnxruntime.RunOptions`` that keeps CUDA graphs out of its runs; None if not needed.
        inputs: each input's name, dtype and axes.
        outputs: the same for outputs.
        states: each state input, and the output that feeds it at the next step.
        counts: the inputs that hold numbers of steps, such as lengths, and the axis along which they count.
        metadata: the file's metadata: the spec of a bare LSTM, the inputs of a module, initial states, options,
            versions, the weights' digest.
    """

    @overload
    def __call__(
        self, input: torch.Tensor, states: tuple[Any, Any] | None = None, *, lengths: Any = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]: ...
    @overload
    def __call__(
        self, input: ArrayLike, states: tuple[Any, Any] | None = None, *, lengths: Any = None
    ) -> tuple[Array, tuple[Array, Array]]: ...
    @overload
    def __call__(
        self, input: Any, states: tuple[Any, Any] | None = None, *, lengths: Any = None
    ) -> tuple[Any, tuple[Any, Any]]: ...
    def __call__(self, input: Any, states: tuple[Any, Any] | None = None, *, lengths: Any = None) -> tuple[Any, Any]:
        """nn.LSTM's calling convention, for a bare LSTM.

        NaN or infinity in `input` gives a RuntimeWarning: ONNX Runtime's LSTM on the CPU turns them into ordinary
        numbers.

        Args:
            input: ``(time, batch, input_size)``, ``(batch, time, input_size)`` with batch_first, or one sequence
                ``(time, input_size)``.
            states: (h0, c0) of shapes ``(L*D, batch, proj_size or hidden_size)`` and ``(L*D, batch, hidden_size)``,
                without the batch axis for one sequence.  If left out, `metadata.initial`, or zeros.
            lengths: ``(batch,)`` integers from 1 to time, for a model exported with lengths.  If left out, every
                sequence has full length.

        Returns:
            ``output, (hn, cn)`` of the type of `input`: numpy arrays for numpy, torch tensors for torch.

        Raises:
            InputError: something does not fit; the message names it.
            RunError: ONNX Runtime failed while running, or memory ran out.
        """
        return call_lstm(self, input, states, lengths)

    @overload
    def run(self, feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]: ...
    @overload
    def run(self, feeds: Mapping[str, ArrayLike]) -> dict[str, Array]: ...
    @overload
    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]: ...
    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run any model by the names of its inputs.

        States that are left out start from `metadata.initial`, or from zeros; their axes have the sizes of the
        axes of the same name in `feeds`.  If a bare LSTM's ``lengths`` are left out, every sequence has full length;
        if the input ``last`` of a file made for streams is left out, the sequence is complete.

        Args:
            feeds: input names to arrays of the shapes in `inputs`.

        Returns:
            Output names to arrays, of the type of the first array in `feeds`.

        Raises:
            InputError: something does not fit; the message names it.
            RunError: ONNX Runtime failed while running, or memory ran out.
        """
        return run_model(self, feeds)

    def stream(self, batch: int = 1, *, check: bool = True) -> Stream:
        """A stream that carries the states from chunk to chunk, for `batch` sequences at once.

        Args:
            batch: how many sequences run side by side.
            check: for a file whose metadata does not say whether it can be streamed, compare chunks of random
                steps, or frames, with the whole sequence, once, when the first stream is opened.

        Raises:
            InputError: the model has no states, or chunks give other numbers than the whole sequence, as in a
                bidirectional model; or the batch is not possible.
        """
        from .stream import Stream

        return Stream(self, batch, check=check)

    def pool(self, slots: int = 64, *, check: bool = True) -> Pool:
        """A pool of up to `slots` streams that are stepped together, as one batch.

        Args:
            slots: how many streams can be open at once.
            check: as in `stream`, and compare a sequence alone with itself in a batch.

        Raises:
            InputError: the model cannot be streamed (see `stream`), sequences in a batch affect each other, its batch
                is fixed, or `slots` is not possible or too large for memory.
        """
        from .pool.pool import Pool

        return Pool(self, slots, check=check)

    def map(
        self,
        sequences: Iterable[Any],
        *,
        workers: int | None = None,
        look_ahead: int | None = None,
        batch: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Iterator[Any]:
        """Run the model on many sequences of varying length, and yield the results in their order.

        Sequences are read ahead, sorted by length and run in small batches by one thread per core.  A model with
        lengths runs sequences of different lengths together; one without lengths runs only sequences of equal length
        together, which is slower if they vary (export with ``lengths=True``).  A module with lengths is tried first:
        if padding would change its results, only equal lengths run together as well.  The results are those of the
        model called on each sequence alone, up to float rounding, which depends on the batch.

        Args:
            sequences: an iterable, which may be larger than memory, of single sequences without the batch axis.  For
                a bare LSTM an array ``(time, input_size)``, or a pair with its states, ``(array, (h0, c0))`` of
                shapes ``(L*D, proj_size or hidden_size)`` and ``(L*D, hidden_size)``; for any model a dict of
                input names to arrays, without lengths for a complete sequence.  For a model whose inputs have no
                batch axis, what `run` takes.  It is read in the caller's thread, and copied.
            workers: threads; None for one per core that this process may use, one on CUDA.
            look_ahead: sequences held at once, as inputs or as results; None for 1024, or fewer where they would
                take more than 256 MiB.
            batch: the largest number of sequences in a batch; None to measure the best one, which takes a
                fraction of a second and is kept for later calls.
            progress: called with the number of sequences done so far, in the caller's thread.

        Yields:
            For an array or a pair ``output, (hn, cn)`` of shapes ``(time, D * (proj_size or hidden_size))`` and
            those of the states; for a dict the outputs by name, cut to the sequence's own length.  Arrays of the
            type that was passed.

        Raises:
            InputError: at once, an argument is not possible.
            InputError, RunError: while iterating, after all results before it: a sequence does not fit, or ONNX
                Runtime failed on it; `index` is its number, from 0.
        """
        from .map.map import map_sequences

        return map_sequences(self, sequences, workers=workers, look_ahead=look_ahead, batch=batch, progress=progress)

    def warm_up(self, **sizes: int) -> None:
        """Run once on arbitrary inputs, so that memory and kernels are ready for the first real run.

        Args:
            sizes: of the named axes, such as ``batch=1, time=10``; the smallest possible where left out.

        Raises:
            InputError: an axis is not one of the model's, or a size is not possible.
            RunError: ONNX Runtime failed while running, or memory ran out.
        """
        from .warm_up import smallest_feeds

        self.run(smallest_feeds(self, sizes))

    def __repr__(self) -> str:
        """Path, provider and inputs, on one line."""
        inputs = "; ".join(str(info) for info in self.inputs.values())
        closed = ", closed" if self.closed else ""
        return one_line(f"<Model {self.path} on {self.provider}{closed}: {inputs}>")

    def _repr_html_(self) -> str:
        """A table of inputs, outputs and states, for notebooks."""
        from .notebook import model_html

        return model_html(self)

"""Sparse tensors of a module, such as the adjacency of a graph, become sums of the rows that they pick."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ExportError
from tests.exporter.helpers import X, agree, eager, made

pytestmark = pytest.mark.filterwarnings("ignore:Sparse (CSR|invariant):UserWarning")

Product = Callable[[Tensor, Tensor], Tensor]
PRODUCTS: dict[str, Product] = {
    "sparse.mm": torch.sparse.mm,
    "mm": Tensor.mm,
    "matmul": torch.matmul,
    "transposed": lambda a, x: a.t() @ x,
    "from the right": lambda a, x: (x.t() @ a).t(),
    "to_dense": lambda a, x: a.to_dense() @ x,
    "entries": lambda a, x: torch.zeros_like(x).index_add(
        0, a.coalesce().indices()[0], a.coalesce().values()[:, None] * x[a.coalesce().indices()[1]]
    ),
    "made": lambda a, x: torch.sparse_coo_tensor(a.coalesce().indices(), a.coalesce().values() * 2, (4, 4)) @ x,
}


class Graph(nn.Module):
    """Each step's features go along the edges of a graph, before an LSTM."""

    def __init__(self, product: Product, *, layout: str = "coo", kind: str = "buffer") -> None:
        super().__init__()
        torch.manual_seed(0)
        edges = torch.tensor([[0.0, 0.5, 0, 0], [0, 0, 2, 0], [1, 0, 0, 3], [0, 0, 0, 0]])
        sparse = edges.to_sparse_csr() if layout == "csr" else edges.to_sparse()
        if kind == "buffer":
            self.register_buffer("edges", sparse)
        else:
            self.edges = nn.Parameter(sparse) if kind == "parameter" else sparse
        self.product, self.lstm = product, nn.LSTM(4, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        spread = self.product(self.edges, x.reshape(-1, 4).t()).t()
        out: Tensor = self.lstm(spread.reshape(x.shape))[0]
        return out


def signal(batch: int, time: int) -> tuple[Tensor]:
    return (torch.randn((batch, time, 4), generator=torch.Generator().manual_seed(time)),)


def right(module: nn.Module, folder: Path) -> Any:
    result = made(module, signal(2, 5), X, folder)
    for sizes in ((1, 1), (3, 7)):
        agree(result.run(signal(*sizes)), eager(module, signal(*sizes)))
    return result


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_a_sparse_buffer(name: str, tmp_path: Path) -> None:
    module = Graph(PRODUCTS[name])
    right(module, tmp_path)
    assert module.edges.is_sparse  # the caller's own
    assert "edges" in module.state_dict()


@pytest.mark.sweep(3)
@pytest.mark.parametrize(("layout", "kind"), [("coo", "attribute"), ("coo", "parameter"), ("csr", "buffer")])
def test_other_layouts_and_places(layout: str, kind: str, tmp_path: Path) -> None:
    right(Graph(torch.matmul, layout=layout, kind=kind), tmp_path)


@pytest.mark.filterwarnings("ignore:.*x has a NaN or an infinity:RuntimeWarning")
def test_an_infinity_stays_with_the_rows_that_are_its_neighbours(tmp_path: Path) -> None:
    module = Graph(torch.matmul, layout="csr")
    result = right(module, tmp_path)
    (x,) = signal(2, 5)
    x[0, 4, 3] = torch.inf  # the last step: nothing comes after it
    (found,), (expected,) = result.run((x,)), eager(module, (x,))
    agree([found[:, :4], found[1]], [expected[:, :4], expected[1]])


def test_verify_rejects_the_file_of_another_graph(tmp_path: Path) -> None:
    module = Graph(torch.sparse.mm)
    result = right(module, tmp_path)
    assert lstm_onnx.verify(module, result.path, mutants="none")
    module.edges = module.edges * 1.01
    assert not lstm_onnx.verify(module, result.path, mutants="none")


def test_what_has_no_form_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"test_sparse.py:\d+: .*mul: ONNX has no sparse tensors"):
        made(Graph(lambda a, x: (a * x[:, :4]).to_dense() @ x), signal(2, 5), X, tmp_path)


def test_a_sparse_input_is_refused(tmp_path: Path) -> None:
    class Given(Graph):
        def forward(self, x: Tensor, edges: Tensor) -> Tensor:  # type: ignore[override]
            return self.product(edges, x[:, -1].t())

    with pytest.raises(ExportError, match="edges is sparse, and a file's inputs are dense"):
        made(Given(torch.sparse.mm), (*signal(2, 5), torch.eye(4).to_sparse()), None, tmp_path)

"""How a module is exported: what `export` is called with, and what a .toml's [module] and [export] say."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..generation_spec import Generation
from ..input_spec import InputSpec
from ..spec import INT8_KERNELS, INT8_LAYERS, ExportOptions
from ..streaming.convert import require_chunk

STATES = ("zero", "explicit")


@dataclass(frozen=True)
class ModuleOptions:
    """How a module is exported.

    Attributes:
        export: how the file is written.
        states: "zero" or "explicit".
        output_names: names of the outputs, in order; None derives them from the forward's result.
        input_specs: descriptions of the inputs that replace those derived from the example.
        check: whether the file is tried at other shapes before it is kept.
        max_delay: the most steps of look-ahead of a file with explicit states.
        chunk: with explicit states, every chunk has a multiple of so many steps; None for chunks of any length.
        generation: how the module's step is repeated; None where it is exported as it is.

    Raises:
        ConfigError: `states`, `max_delay` or `chunk` is something else.
    """

    export: ExportOptions = dataclasses.field(default_factory=ExportOptions)
    states: str = "zero"
    output_names: tuple[str, ...] | None = None
    input_specs: tuple[InputSpec, ...] | None = None
    check: bool = True
    max_delay: int = 0
    chunk: int | None = None
    generation: Generation | None = None

    def __post_init__(self) -> None:
        """Validate `states`, `max_delay` and `chunk`."""
        if self.states not in STATES:
            raise ConfigError.of_argument("states", self.states, '"zero" or "explicit"')
        if isinstance(self.max_delay, bool) or not isinstance(self.max_delay, int) or self.max_delay < 0:
            raise ConfigError.of_argument("max_delay", self.max_delay, "a number of steps")
        require_chunk(self.chunk)

    def require_explicit(self) -> None:
        """Refuse what goes with explicit states alone (ConfigError); `changed` may still set them."""
        if self.states != "explicit":
            for name, value in (("max_delay", self.max_delay), ("chunk", self.chunk)):
                if value:
                    raise ConfigError(f'{name} goes with states = "explicit", which makes a file that streams')

    def changed(self, **changes: Any) -> ModuleOptions:
        """Other values of these and of `ExportOptions`; None leaves one as it is.

        Raises:
            ConfigError: an option is not possible.
        """
        own = {item.name for item in dataclasses.fields(self)}
        mine = {name: value for name, value in changes.items() if name in own and value is not None}
        others = {name: value for name, value in changes.items() if name not in own}
        return dataclasses.replace(self, export=changed_options(self.export, others), **mine)


def changed_options(options: ExportOptions, changes: dict[str, Any]) -> ExportOptions:
    """Other values of some options; None leaves one as it is.

    Raises:
        ConfigError: an option is not possible.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    if given.get("precision", "int8") != "int8":
        given = {"layers": INT8_LAYERS[0], "kernel": INT8_KERNELS[0], **given}  # which are int8's
    return dataclasses.replace(options, **given)

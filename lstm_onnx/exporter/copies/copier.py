"""Copies of what a module holds: containers, objects, functions with the variables they close over, and tensors.

copy.deepcopy shares functions, and so whatever a hook or a lambda writes into; it runs the classes' own code;
and it fails for objects that cannot be pickled, such as a lock.  Here only what a forward can compute with or
write into is copied.  Everything else (locks, files, loggers, objects of other libraries) is shared.
"""

from __future__ import annotations

import array
import collections
import contextlib
import enum
import functools
import operator
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from ..user_code import is_library
from ..wrappers import HookedWrapper, is_wrapper, plain_attributes, uncompiled, wrapped_module
from .code_names import ENTRIES, CodeNames
from .contents import Weak
from .generators import GENERATORS, copied_generator
from .object_parts import VIEWS, attributes_of, base_of, is_copied, slots_of, viewed
from .rebuilt_code import ATOMIC, derived_class, keeps_anything, rebuilt_function
from .shared_memory import SharedMemory
from .stand_ins import in_order, instead_of, keep, kept_results

_MAPPINGS = (collections.defaultdict, collections.OrderedDict, dict)
_SEQUENCES = (list, collections.deque, bytearray)
_LARGE = 2**24
"""A numpy array of at least this many bytes counts as data: the copy shares its memory, read-only."""


class Copier:
    """Copies objects with a memo, like copy.deepcopy, so that shared objects stay shared.

    Args:
        dtype: floating-point tensors are converted to it; None keeps their dtypes.
        packages: objects of classes of these top-level packages are copied; others only if they hold tensors.
        names: the global variables and class attributes to copy: those that the code can reach.
        addressed: objects that code may look up by their ``id()``, which differs in the copy.

    Attributes:
        mutable: the copied modules, containers, objects, generators and closure cells that code may write into.
        memory: the copied tensors, by where the originals are in memory.
        shared: objects that are not copied, such as loggers and members of enums.
    """

    def __init__(
        self,
        dtype: torch.dtype | None,
        packages: frozenset[str] = frozenset(),
        names: CodeNames | None = None,
        addressed: Iterable[Any] = (),
    ) -> None:
        self.dtype = dtype
        self.packages = packages
        self.names = names or CodeNames()
        self.mutable: list[Any] = []
        self.memory = SharedMemory()
        self.shared: list[Any] = []
        self._addresses = {id(item): item for item in addressed}
        self._memo: dict[int, Any] = {}
        self._alive: list[Any] = []  # keeps the objects alive whose ids are in the memo
        self._tables: dict[int, dict[str, Any]] = {}
        self._classes: dict[type, type] = {HookedWrapper: HookedWrapper}
        self._unfinished: list[nn.Module] = []

    def finish(self) -> None:
        """Give the copied modules their classes; last, as a class may refer back to modules, such as in a registry."""
        for module in self._unfinished:  # grows during the loop
            if (kind := self._class(own := type(module))) is not own:
                self.names.require_uncompared(own)
                object.__setattr__(module, "__class__", kind)

    def of(self, value: Any) -> Any:
        """The copy of a value, or the value itself where it is shared."""
        if type(value) in ATOMIC:
            owner = self._addresses.get(value) if type(value) is int else None
            return value if owner is None else id(self.of(owner))
        if id(value) in self._memo:
            return self._memo[id(value)]
        return self._enter(value, self._copy(value))

    def _enter(self, value: Any, copy: Any, *, mutable: bool = False) -> Any:
        """Remember a copy before its contents are copied, since they may refer back to it."""
        if id(value) not in self._memo:
            self._alive.append(value)
        self._memo[id(value)] = copy
        if mutable:
            self.mutable.append(copy)
        return copy

    def _copy(self, value: Any) -> Any:
        kind = type(value)  # not isinstance: a weakref.proxy and some users' classes pretend to be others
        for base, copy in _COPIES:
            if issubclass(kind, base):
                return copy(self, value)
        return self._object(value) if is_copied(value, self.packages) else self._shared(value)

    def _shared(self, value: Any) -> Any:
        """The value itself."""
        if not isinstance(value, (type, types.ModuleType)):
            self.shared.append(value)
        return value

    def _module(self, value: nn.Module) -> Any:
        inner = wrapped_module(value)
        if inner is not None:
            copy: nn.Module = self._enter(value, self.of(inner))
            # Code that reaches through the wrapper, as in ``self.encoder.module.lstm``, still finds the module.
            name = next(name for name, part in value._modules.items() if part is inner)
            if not hasattr(copy, name):
                copy.__dict__[name] = copy
            return copy
        # Not by the class's own __new__: it may take arguments, and a GraphModule's makes a class without a forward.
        kind = HookedWrapper if is_wrapper(value) else type(value)
        new = self._enter(value, object.__new__(kind), mutable=True)
        self._unfinished.append(new)
        # Not by Module.__setattr__, which would register parameters, buffers and modules; those are copied separately.
        attributes_of(new).update({name: self.of(item) for name, item in plain_attributes(value).items()})
        self._copy_slots(value, new)
        return new

    def _tensor(self, value: torch.Tensor) -> Any:
        dtype = self.dtype if self.dtype is not None and value.is_floating_point() else value.dtype
        copy = value.detach().to(dtype, copy=True)
        if isinstance(value, nn.Parameter):
            copy = nn.Parameter(copy, requires_grad=value.requires_grad)
        if type(value) not in (torch.Tensor, nn.Parameter, type(copy)):
            copy = copy.as_subclass(type(value))
        self._enter(value, copy)
        self.memory.add(value, copy)
        for name, item in vars(value).items():
            copy.__dict__[name] = self.of(item)
        return copy

    def _mapping(self, value: Any) -> Any:
        kind = type(value)
        base = next(base for base in _MAPPINGS if issubclass(kind, base))
        new = self._enter(value, base.__new__(kind), mutable=True)
        if isinstance(value, collections.defaultdict):
            new.default_factory = self.of(value.default_factory)
        # The base class's methods: a user's class may have others with side effects.
        for key, item in base.items(value):
            base.__setitem__(new, self.of(key), self.of(item))
        self._attributes(value, new)
        return new

    def _sequence(self, value: Any) -> Any:
        base: Any = next(base for base in _SEQUENCES if issubclass(type(value), base))
        new = self._enter(value, base.__new__(type(value)), mutable=True)
        if base is collections.deque:
            base.__init__(new, (), value.maxlen)
        items = list(base.__iter__(value))
        same = set(map(type, items)) <= ATOMIC and self._addresses.keys().isdisjoint(items)
        base.extend(new, items if same else map(self.of, items))
        self._attributes(value, new)
        return new

    def _set(self, value: Any) -> Any:
        items = [self.of(item) for item in set.__iter__(value)]
        kind = type(value) if all(map(operator.is_, items, set.__iter__(value))) else in_order(type(value), items)
        new: Any = self._enter(value, set.__new__(kind), mutable=True)
        set.update(new, map(self.of, set.__iter__(value)))
        self._attributes(value, new)
        return new

    def _immutable(self, value: Any) -> Any:
        """A copied tuple or frozenset, or the value itself if nothing in it was copied."""
        base = tuple if isinstance(value, tuple) else frozenset
        items = [self.of(item) for item in base.__iter__(value)]
        if all(one is other for one, other in zip(items, base.__iter__(value), strict=True)):
            return value
        if id(value) in self._memo:
            return self._memo[id(value)]  # something that it holds refers back to it
        try:
            kind = in_order(type(value), items) if base is frozenset else type(value)
            new: Any = base.__new__(kind, items)  # not by a namedtuple's own __new__
        except TypeError:
            new = type(value)(items)  # torch.return_types
        self._attributes(value, new)
        return new

    def _array(self, value: Any) -> Any:
        if type(value) is not np.ndarray or value.dtype.hasobject:
            return value
        if value.nbytes <= _LARGE:
            copy = self._enter(value, value.copy(), mutable=True)
            self.memory.add_array(value, copy)
            return copy
        view = value.view()
        view.flags.writeable = False
        return view

    def _method(self, value: types.MethodType) -> Any:
        owner, function = self.of(value.__self__), self.of(value.__func__)
        if owner is value.__self__ and function is value.__func__:
            return value
        name = getattr(function, "__name__", "")
        if isinstance(owner, (nn.RNNBase, nn.RNNCellBase)) and getattr(type(owner), name, None) is function:
            # The copy may get another forward, of its own or of its class; the copied method must call that one.
            def method(*args: Any, **kwargs: Any) -> Any:
                own = vars(getattr(vars(owner).get(name), "__func__", method)).get("is_recurrent")
                return (getattr(owner, name) if own else getattr(owner.__class__, name).__get__(owner))(*args, **kwargs)

            return method
        return types.MethodType(function, owner)

    def _builtin_method(self, value: types.BuiltinMethodType | types.MethodWrapperType) -> Any:
        """A bound method of a container or tensor, such as ``self.frames.append``; other C functions are shared."""
        copy = self.of(value.__self__)
        return value if copy is value.__self__ else getattr(copy, value.__name__)

    def _weak(self, value: Any) -> Any:
        new: Any = self._enter(value, type(value)())
        self.mutable.append(Weak(new))
        new.update([(self.of(key), self.of(item)) for key, item in value.items()])
        return new

    def _view(self, value: Any) -> Any:
        own, view = viewed(value)
        copy = self.of(own)
        return value if copy is own else view(copy)

    def _partial(self, value: functools.partial[Any]) -> Any:
        function, args, keywords = map(self.of, (value.func, value.args, dict(value.keywords)))
        same = function is value.func and args is value.args
        if same and all(keywords[name] is item for name, item in value.keywords.items()):
            return value
        return functools.partial(function, *args, **keywords)

    def _cached(self, value: Any) -> Any:
        """A function with functools.cache; the copy's results are undone after a call, and sizes need no hash."""
        if is_library(getattr(value.__wrapped__, "__module__", "")):
            return value
        function = self.of(value.__wrapped__)
        results: dict[Any, Any] = {}
        self.mutable.append(results)
        return kept_results(function, results)

    def _function(self, value: types.FunctionType) -> Any:
        own = uncompiled(value)
        if own is not value:
            return self.of(own)
        table = self._table(value.__globals__)
        if id(value) in self._memo:
            return self._memo[id(value)]  # the globals refer back to it
        if table is value.__globals__ and not keeps_anything(value):
            return value
        cells, defaults = value.__closure__ or (), (value.__defaults__, value.__kwdefaults__)
        new = self._enter(value, rebuilt_function(value, table, tuple(map(self._cell, cells))), mutable=True)
        new.__defaults__ = self.of(defaults[0])
        new.__kwdefaults__ = self.of(defaults[1])
        new.__dict__.update({name: self.of(item) for name, item in value.__dict__.items()})
        for cell in cells:
            self._fill(cell)
        return new

    def _cell(self, cell: types.CellType) -> types.CellType:
        copy: types.CellType = self._memo.get(id(cell)) or self._enter(cell, types.CellType(), mutable=True)
        return copy

    def _fill(self, cell: types.CellType) -> None:
        copy = self._memo[id(cell)]
        with contextlib.suppress(ValueError):  # an empty cell
            content = cell.cell_contents
            try:
                copy.cell_contents  # noqa: B018 - whether it is filled
            except ValueError:
                copy.cell_contents = self.of(content)

    def _table(self, own: dict[str, Any]) -> dict[str, Any]:
        """The globals of a copied function: the original dict, unless something reachable in it is copied."""
        if id(own) in self._tables:
            return self._tables[id(own)]
        names = self.names.tables.get(id(own), (own, set()))[1]
        self._tables[id(own)] = own
        if is_library(own.get("__name__", "")):
            return own
        # Functions of the same file are copied only if something else is.
        functions = {name: item for name in names if isinstance(item := uncompiled(own[name]), types.FunctionType)}
        local = {name: item for name, item in functions.items() if item.__globals__ is own and not keeps_anything(item)}
        copies = {name: self.of(own[name]) for name in sorted(names - local.keys())}
        changed = any(item is not own[name] for name, item in {**copies, **local}.items())
        if not changed and id(own) not in self.names.assigned:
            return own
        table = self._tables[id(own)] = {**own, **copies}
        self.mutable.append(table)
        table.update({name: self.of(item) for name, item in local.items()})
        return table

    def _class(self, kind: type) -> type:
        """The class of a copied module: a derived class if the code of its methods uses something that is copied."""
        if kind in self._classes:
            return self._classes[kind]
        self._classes[kind] = kind
        if not is_library(kind.__module__):
            bases = [copy for base in kind.__mro__[1:] if (copy := self._class(base)) is not base]  # for super()
            copies = {name: self._class_attribute(name, item) for name, item in vars(kind).items()}
            changed = {name: copy for name, copy in copies.items() if copy is not vars(kind)[name]}
            if bases or changed:
                self._classes[kind] = derived_class(kind, changed, bases)
        return self._classes[kind]

    def _class_attribute(self, name: str, item: Any) -> Any:
        if isinstance(item, (staticmethod, classmethod)):
            function = self._class_attribute(name, item.__func__)
            return item if function is item.__func__ else type(item)(function)
        if isinstance(item, property):
            fget, fset, fdel = (self._class_attribute(name, part) for part in (item.fget, item.fset, item.fdel))
            same = fget is item.fget and fset is item.fset and fdel is item.fdel
            return item if same else property(fget, fset, fdel, item.__doc__)
        if isinstance(item, (types.FunctionType, functools._lru_cache_wrapper)):
            return self.of(item) if name in self.names.attributes or name in ENTRIES else item
        # Attributes that Python gives to a class, such as its annotations, are not used by its code.
        return self.of(item) if name in self.names.attributes and not name.startswith("__") else item

    def _reference(self, value: Any) -> Any:
        target = value()
        copy = self.of(target)
        # The reference's callback keeps the copy alive, since nothing else may.  Python drops a callback only after the
        # reference has left the object's list of references.  It would drop an attribute before, and that crashes the
        # process if another reference to the object has a callback.
        return value if copy is target else weakref.ref(copy, functools.partial(keep, copy))

    def _proxy(self, value: Any) -> Any:
        try:
            return self.of(value.__init__.__self__)
        except ReferenceError:
            return None  # its referent is gone

    def _iterator(self, value: Any) -> Any:
        other = instead_of(value)
        if other is value and is_copied(value, self.packages):
            return self._object(value)
        return self._shared(value) if other is value else self._enter(value, other)

    def _generator(self, value: Any) -> Any:
        new = copied_generator(value)
        return value if new is value else self._enter(value, new, mutable=True)

    def _object(self, value: Any) -> Any:
        kind = type(value)
        base: Any = base_of(kind)
        try:
            new = base.__new__(kind)
        except TypeError:  # it is not written in Python after all
            return value
        self._enter(value, new, mutable=True)
        self._attributes(value, new)
        return new

    def _attributes(self, value: Any, new: Any) -> None:
        """Copy an object's `__dict__` and slots."""
        own = attributes_of(value)
        if own is value:
            object.__setattr__(new, "__dict__", new)  # a dict whose items are its attributes
        elif own:
            attributes_of(new).update({name: self.of(item) for name, item in own.items()})
        self._copy_slots(value, new)

    def _copy_slots(self, value: Any, new: Any) -> None:
        for slot in slots_of(type(value)):
            with contextlib.suppress(AttributeError):  # an empty one
                slot.__set__(new, self.of(slot.__get__(value)))


_COPIES: tuple[tuple[Any, Callable[[Copier, Any], Any]], ...] = (
    (torch.Tensor, Copier._tensor),
    (nn.Module, Copier._module),
    ((torch.Size, torch.device), lambda _, value: value),
    (enum.Enum, Copier._shared),
    (dict, Copier._mapping),
    (_SEQUENCES, Copier._sequence),
    (set, Copier._set),
    ((tuple, frozenset), Copier._immutable),
    (types.FunctionType, Copier._function),
    (types.MethodType, Copier._method),
    ((types.BuiltinMethodType, types.MethodWrapperType), Copier._builtin_method),
    (functools.partial, Copier._partial),
    (functools._lru_cache_wrapper, Copier._cached),
    (array.array, lambda self, value: self._enter(value, type(value).__copy__(value), mutable=True)),
    (np.ndarray, Copier._array),
    (weakref.ReferenceType, Copier._reference),
    ((weakref.ProxyType, weakref.CallableProxyType), Copier._proxy),
    (GENERATORS, Copier._generator),
    ((weakref.WeakKeyDictionary, weakref.WeakValueDictionary), Copier._weak),
    (VIEWS, Copier._view),
    (Iterator, Copier._iterator),
)
"""How instances of a class are copied; the first match counts, and all others are plain objects or shared."""

# What nanobind's stub generator can't know of types that are written against CPython
# itself: how their methods are typed. The docstrings are the module's own (\doc). A
# rule that matches nothing fails a build with AUTOJIT_DEV.

^autojit\._core\.__prefix__$:
    \from collections.abc import Callable, Iterable
    \from inspect import Signature
    \from types import GenericAlias, UnionType
    \from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, final, overload, type_check_only
    \from autojit._jit import CacheInfo, SpecializationInfo
    \from autojit._stages import Flat, Lowered, Traced
    _P = ParamSpec("_P")
    _Q = ParamSpec("_Q")
    _R = TypeVar("_R", covariant=True)
    _S = TypeVar("_S")
    _T = TypeVar("_T")
    _T_co = TypeVar("_T_co", covariant=True)

    @type_check_only
    class _BoundDispatcher(Protocol[_P, _R]):
        """What a dispatcher gives when it is looked up on an instance."""

        @property
        def __self__(self) -> object: ...
        @property
        def __func__(self) -> Dispatcher[..., _R]: ...
        @property
        def __name__(self) -> str: ...
        @property
        def __qualname__(self) -> str: ...
        def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R: ...
        def cache_info(self) -> CacheInfo: ...
        def clear_cache(self) -> None: ...
        def specializations(self) -> list[SpecializationInfo]: ...
        def trace(self, *args: Any, **kwargs: Any) -> Traced: ...
        def lower(self, *args: Any, **kwargs: Any) -> Lowered: ...
        def eval_shape(self, *args: Any, **kwargs: Any) -> Any: ...
        def flat(self, *args: Any, **kwargs: Any) -> Flat: ...
        def explain(self, *args: Any, **kwargs: Any) -> str | None: ...

# How a dispatcher is made and what it keeps are private.
^autojit\._core\.Dispatcher\.__new__$:
    def __new__(
        cls, fun: Callable[_P, _R], options: Any, maxsize: int, maxbytes: int, /
    ) -> Self: ...

^autojit\._core\.Dispatcher\._fun$:
    @property
    def _fun(self) -> Callable[_P, _R]: ...

^autojit\._core\.Dispatcher\._options$:
    @property
    def _options(self) -> Any: ...

^autojit\._core\.Dispatcher\._empty$:
    @staticmethod
    def _empty() -> Dispatcher[..., Any]:
        \doc

^autojit\._core\.Dispatcher\.__setstate__$:
    def __setstate__(self, state: tuple[Any, ...], /) -> None:
        \doc

^autojit\._core\.Dispatcher\.__repr__$:

^autojit\._core\.Dispatcher\.__call__$:
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        \doc

^autojit\._core\.Dispatcher\.__get__$:
    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> Self: ...
    @overload
    def __get__(
        self: Dispatcher[Concatenate[_S, _Q], _T],
        instance: _S,
        owner: type | None = None,
        /,
    ) -> _BoundDispatcher[_Q, _T]: ...

^autojit\._core\.Dispatcher\.__class_getitem__$:
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...

^autojit\._core\.Dispatcher\.__(name|qualname)__$:
    __\1__: str

^autojit\._core\.Dispatcher\.__type_params__$:
    __type_params__: tuple[Any, ...]

^autojit\._core\.Dispatcher\.__signature__$:
    __signature__: Signature

^autojit\._core\.Dispatcher\.__wrapped__$:
    @property
    def __wrapped__(self) -> Callable[_P, _R]:
        \doc

^autojit\._core\.Dispatcher\.trace$:
    def trace(self, *args: Any, **kwargs: Any) -> Traced:
        \doc

^autojit\._core\.Dispatcher\.lower$:
    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        \doc

^autojit\._core\.Dispatcher\.eval_shape$:
    def eval_shape(self, *args: Any, **kwargs: Any) -> Any:
        \doc

^autojit\._core\.Dispatcher\.flat$:
    def flat(self, *args: Any, **kwargs: Any) -> Flat:
        \doc

^autojit\._core\.Dispatcher\.explain$:
    def explain(self, *args: Any, **kwargs: Any) -> str | None:
        \doc

^autojit\._core\.Dispatcher\._take_apart$:
    def _take_apart(
        self, *args: Any, **kwargs: Any
    ) -> tuple[Skeleton, tuple[Any, ...]]:
        \doc

^autojit\._core\.Dispatcher\.cache_info$:
    def cache_info(self) -> CacheInfo:
        \doc

^autojit\._core\.Dispatcher\.specializations$:
    def specializations(self) -> list[SpecializationInfo]:
        \doc

^autojit\._core\.Dispatcher\.clear_cache$:
    def clear_cache(self) -> None:
        \doc

^autojit\._core\.Skeleton\.__(repr|lt|le|gt|ge|ne)__$:

^autojit\._core\.Skeleton\.__eq__$:
    def __eq__(self, other: object, /) -> bool: ...

^autojit\._core\.Skeleton\.__hash__$:
    def __hash__(self) -> int: ...

^autojit\._core\.Skeleton\.unflatten$:
    def unflatten(self, leaves: Iterable[Any], /) -> Any:
        \doc

^autojit\._core\.Skeleton\.diff$:
    def diff(self, other: Skeleton, /) -> str | None:
        \doc

^autojit\._core\.Skeleton\._distance$:
    def _distance(self, other: Skeleton, /) -> int:
        \doc

^autojit\._core\.Skeleton\._leaf_path$:
    def _leaf_path(self, leaf: int, /) -> str:
        \doc

^autojit\._core\.Skeleton\._argument_leaves$:
    def _argument_leaves(self, argument: int | str, /) -> list[int]:
        \doc

^autojit\._core\.Skeleton\._handed_through$:
    def _handed_through(self, call: Skeleton, /) -> list[tuple[Any, int, bool, bool]]:
        \doc

^autojit\._core\.Skeleton\._captured$:
    def _captured(self) -> tuple[Any, ...] | None:
        \doc

^autojit\._core\.Skeleton\._sentinels$:
    def _sentinels(self) -> list[Any]:
        \doc

^autojit\._core\.Skeleton\._differences$:
    def _differences(self, other: Skeleton, /) -> list[tuple[str, str, str, bool]]:
        \doc

^autojit\._core\.Skeleton\._lost$:
    def _lost(
        self,
        leaves: tuple[Any, ...],
        result: object,
        fun: object,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        /,
    ) -> list[str]:
        \doc

^autojit\._core\.Skeleton\._learned$:
    def _learned(self) -> list[int]:
        \doc

^autojit\._core\.Skeleton\._leads$:
    def _leads(self, steps: tuple[str, ...], /) -> bool:
        \doc

^autojit\._core\.Skeleton\._node_path$:
    def _node_path(self, number: int, /) -> str:
        \doc

^autojit\._core\.Skeleton\._num_positional$:
    @property
    def _num_positional(self) -> int:
        \doc

^autojit\._core\.Skeleton\.num_leaves$:
    @property
    def num_leaves(self) -> int:
        \doc

^autojit\._core\.flatten$:
    def flatten(
        obj: object,
        leaf_type: type[Any] | tuple[type[Any], ...] | UnionType | None,
        /,
    ) -> tuple[list[Any], Skeleton]:
        \doc

^autojit\._core\.flatten_result$:
    def flatten_result(
        obj: object, call: Skeleton, inputs: tuple[Any, ...], /
    ) -> Any:
        \doc

^autojit\._core\.unwrap$:
    def unwrap(returned: Any, call: Skeleton, leaves: tuple[Any, ...], /) -> Any:
        \doc

^autojit\._core\.new_result$:
    def new_result(skeleton: Skeleton, leaves: Iterable[Any], /) -> Result:
        \doc

^autojit\._core\.Result\.skeleton$:
    @property
    def skeleton(self) -> Skeleton: ...

^autojit\._core\.Result\.leaves$:
    @property
    def leaves(self) -> tuple[Any, ...]: ...

^autojit\._core\.Structure\.__(repr|hash|lt|le|gt|ge|ne|eq)__$:

^autojit\._core\.Structure\.skeleton$:
    @property
    def skeleton(self) -> Skeleton: ...

^autojit\._core\.Structure\.kept$:
    @property
    def kept(self) -> tuple[Any, ...] | None: ...

^autojit\._core\.Structure\.inexact$:
    @property
    def inexact(self) -> bool: ...

^autojit\._core\.Leaves\.items$:
    @property
    def items(self) -> tuple[Any, ...]: ...

^autojit\._core\.Leaves\.paths$:
    @property
    def paths(self) -> tuple[str, ...]:
        \doc

^autojit\._core\.Tree\.obj$:
    @property
    def obj(self) -> _T_co:
        \doc

^autojit\._core\.Tree\._inexact$:
    @property
    def _inexact(self) -> bool: ...

^autojit\._core\.Tree\._parts$:
    def _parts(self) -> tuple[Structure, tuple[Any]] | None:
        \doc

^autojit\._core\.Tree\.__setstate__$:
    def __setstate__(self, state: dict[str, Any], /) -> None:
        \doc

^autojit\._core\.Tree\.__class_getitem__$:
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...

^autojit\._core\.Tree\.__repr__$:

^autojit\._core\.tree$:
    def tree(obj: _T, inexact: bool, /) -> Tree[_T]:
        \doc

^autojit\._core\.empty_tree$:
    def empty_tree(inexact: bool, /) -> Tree[Any]:
        \doc

^autojit\._core\.new_structure$:
    def new_structure(
        skeleton: Skeleton, kept: tuple[Any, ...] | None, inexact: bool, /
    ) -> Structure:
        \doc

^autojit\._core\.flatten_tree$:
    def flatten_tree(tree: Tree[Any], /) -> tuple[tuple[Any], Structure]:
        \doc

^autojit\._core\.unflatten_tree$:
    def unflatten_tree(structure: Structure, children: Iterable[Any], /) -> Tree[Any]:
        \doc

^autojit\._core\.flatten_leaves$:
    def flatten_leaves(leaves: Leaves, /) -> tuple[tuple[Any, ...], None]:
        \doc

^autojit\._core\.unflatten_leaves$:
    def unflatten_leaves(static: None, children: Iterable[Any], /) -> Leaves:
        \doc

^autojit\._core\.process_info$:
    def process_info() -> tuple[int, int, int, int]:
        \doc

^autojit\._core\.set_limits$:
    def set_limits(max_programs: int, max_maps: int, /) -> None:
        \doc

^autojit\._core\.set_counting$:
    def set_counting(is_on: bool, /) -> None:
        \doc

^autojit\._core\.counts$:
    def counts() -> tuple[int, float, int]:
        \doc

^autojit\._core\.fill_group$:
    def fill_group(
        group: BaseExceptionGroup[Any], exceptions: tuple[BaseException, ...], /
    ) -> None:
        \doc

^autojit\._core\.forget_plans$:
    def forget_plans() -> None:
        \doc

^autojit\._core\.configure$:
    def configure(**config: Any) -> None:
        \doc

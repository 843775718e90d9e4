"""What a walk collects, and the rules of layers that are called as a whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .. import layers
from ..layers import attention
from .labels import Classes, compress, core, spread, varying
from .ops import Constraints

_RAW_LIMIT = 2**20  # larger parameters outside layers (token embeddings) are kept


def is_known(module: nn.Module) -> bool:
    """True for modules that are handled as a whole, not operation by operation."""
    return layers.kind_of(module) is not None and not attention.is_open(module)


class Ledger:
    """Labels of layers and parameters of one model.

    Attributes:
        classes: labels and their classes.
        constraints: what is judged at the end.
        produced: layer -> labels of its output channels, (out,).
        consumed: layer -> labels of its input columns, (in,), 0 where no neuron owns them.
        between: per-channel layer -> labels of its channels, (channels,).
        raw: parameter or buffer outside the known layers -> labels of its elements.
        products: (multiply-adds, labels, module) of products of activations, and with parameters.
        order: layers and matrices in the order in which they first run.
        exposed: layer whose weights the model's code uses without calling it -> why its width stays.
        pricing: whether products are priced: the first pass alone.
        ruled: (labels, what a rule of the user's own is for) that had a say in them.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.classes, self.constraints = Classes(), Constraints()
        self.produced: dict[str, Tensor] = {}
        self.consumed: dict[str, Tensor] = {}
        self.between: dict[str, Tensor] = {}
        self.raw: dict[str, Tensor] = {}
        self.products: list[tuple[float, Tensor, str]] = []
        self.order: dict[str, int] = {}
        self.exposed: dict[str, str] = {}
        self._fed: set[str] = set()
        self._starved: set[str] = set()
        self._vanished: list[Tensor] = []
        self.pricing = True
        self.ruled: list[tuple[Tensor, str]] = []
        self._modules = dict(model.named_modules(remove_duplicate=False))
        self._owners = {name: m for name, m in model.named_modules() if layers.is_weighted(m)}

    def price(self, count: float, labels: Tensor, module: str) -> None:
        """Remember so many multiply-adds of a product whose result has these labels."""
        if self.pricing:
            self.products.append((count, core(labels), module))

    def of_parameter(self, name: str, tensor: Tensor) -> Tensor | None:
        """Labels of a parameter or buffer that is used outside the call of its layer."""
        owner, _, own = name.rpartition(".")
        module = self._owners.get(owner)
        if module is not None:
            if tensor.dim() == 1 and own in layers.tensors(module, "outputs"):
                return self.rows(owner, module)
            self.exposed[owner] = "its weights are used outside its call"
            return None
        if not tensor.is_floating_point() or tensor.numel() <= 1 or tensor.numel() > _RAW_LIMIT:
            return None
        if not self._saved(name):
            return None
        if name not in self.raw:
            self.raw[name] = self.classes.new(tensor.numel(), raw=True).reshape(tensor.shape)
        return self.raw[name]

    def reached(self, name: str) -> bool:
        """Whether a layer was called, its weights were used, or it shares them with one of which this is true."""
        return name in self.order or name in self.produced or name in self.between

    def vanish(self, labels: Tensor) -> None:
        """Neurons of which an operation left nothing, as when a detector finds no box."""
        self._vanished.append(core(labels))

    def rows(self, name: str, module: nn.Module) -> Tensor:
        """Labels of a layer's output channels, (out,)."""
        if name not in self.produced:
            self.produced[name] = self.classes.new(layers.out_width(module))
        return self.produced[name]

    def layer(self, name: str, module: nn.Module, labels: Tensor | None, x: Tensor, out: Any) -> Tensor | None:
        """The rule of a layer that is called as a module: labels of its output.

        Args:
            name: dotted name of the layer.
            module: the layer.
            labels: of its input, or None.
            x: its input.
            out: its output, of a recurrent layer whatever it returns.
        """
        self.order.setdefault(name, len(self.order))
        (self._fed if x.numel() else self._starved).add(name)
        if not x.numel():
            return None
        kind = layers.kind_of(module)
        assert kind is not None, name
        if kind.form == "mixing":
            if labels is not None:
                why = kind.reason if kind.own else f"no rule for {type(module).__name__}"
                self.classes.pin(labels, f"{why} ({name})")
            return None
        if kind.form in ("weighted", "reading") and layers.is_computed(module):
            return self._parametrized(name, module, labels, out)
        dim = layers.channel_dim(module, x)
        if kind.form == "reading":
            return self._consume(name, module, labels, dim)
        if kind.form == "channelwise" and layers.out_width(module) == 1 and x.shape[dim] != 1:
            return labels  # one slope or factor for all channels
        if kind.own and (why := layers.misfit(module, x, out)):
            return self._misfitting(name, module, labels, f"the rule for {kind.rule} ({name}) says {why}")
        if layers.is_parted(module):
            return self._misfitting(
                name, module, labels, f"no rule for {type(module).__name__} with groups ({name})"
            )
        if labels is not None and not kind.own and self._heads_in_batch(name, module, labels, dim):
            return self._per_head(name, module, labels, x, out)
        if kind.form == "channelwise":
            return self._per_channel(name, module, labels, x, dim, out)
        if layers.is_grouped(module):
            return self._grouped(name, module, labels, dim, out)
        self._consume(name, module, labels, dim)
        if isinstance(module, nn.Linear) and layers.is_customized(module) and not kind.own:
            why = f"{type(module).__name__} ({name}) is no plain layer"
            self.classes.pin(self.consumed[name], why)
            self.classes.pin(self.rows(name, module), why)
        return spread(self.rows(name, module), layers.channel_dim(module, out), out.shape)

    def _misfitting(self, name: str, module: nn.Module, labels: Tensor | None, why: str) -> None:
        """A layer that does not do what its rule says: nothing of it can be cut, and its channels stay."""
        if labels is not None:
            self.classes.pin(labels, why)
        if layers.is_weighted(module):
            self.classes.pin(self.rows(name, module), why)

    def _parametrized(self, name: str, module: nn.Module, labels: Tensor | None, out: Any) -> Tensor | None:
        """A layer whose weight is computed from other parameters: nothing of it can be cut."""
        why = f"{name} is parametrized (weight norm, a mask, ...); remove the parametrization first"
        if labels is not None:
            self.classes.pin(labels, why)
        if not layers.is_weighted(module):
            return None
        self.classes.pin(self.rows(name, module), why)
        return spread(self.rows(name, module), layers.channel_dim(module, out), out.shape)

    def _consume(self, name: str, module: nn.Module, labels: Tensor | None, dim: int) -> None:
        """Note which neurons a layer reads; at every call they must be the same."""
        if labels is None:
            columns = torch.zeros(layers.in_width(module), dtype=torch.long)
        else:
            columns = self._columns(labels, dim, name)
        if name in self.consumed:
            self.classes.unite(self.consumed[name], columns, fixed=f"{name} also reads what no neuron owns")
        else:
            self.consumed[name] = columns

    def _columns(self, labels: Tensor, dim: int, name: str) -> Tensor:
        """(channels,) labels along one dimension; other dimensions must not tell neurons apart."""
        others = [d for d in range(labels.dim()) if d != dim]
        labels = self.classes.along(labels, others, f"{name} reads across its channels")
        at = [slice(None) if d == dim else 0 for d in range(labels.dim())]
        return labels[tuple(at)].clone()

    def _heads_in_batch(self, name: str, module: nn.Module, labels: Tensor, dim: int) -> bool:
        """Whether a convolution or norm inside attention sees heads as entries of its batch."""
        if isinstance(module, nn.Linear) or dim == 0 or 0 not in varying(labels):
            return False
        owners = (name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1))
        return any(attention.head_count(self._modules[owner]) for owner in owners)

    def _per_head(self, name: str, module: nn.Module, labels: Tensor, x: Tensor, out: Tensor) -> Tensor:
        """A layer that treats every head alike: heads pass, its channels stay, and it works less."""
        labels = self.classes.along(labels, range(1, labels.dim()), f"{name} reads across its channels")
        for dim in range(1, labels.dim()):
            labels = labels.narrow(dim, 0, 1)
        if layers.is_weighted(module) and not layers.is_grouped(module):
            self.classes.pin(self.rows(name, module), f"{name} treats all heads alike")
            self.consumed.setdefault(name, torch.zeros(layers.in_width(module), dtype=torch.long))
        if layers.is_conv(module):
            places = x.numel() if layers.input_dim(module) == 0 else out.numel()
            self.price(places * module.weight[0].numel(), labels, name)
        return labels.expand(out.shape)

    def _per_channel(
        self, name: str, module: nn.Module, labels: Tensor | None, x: Tensor, dim: int, out: Tensor
    ) -> Tensor | None:
        """A norm (or PReLU): the channels pass, and its parameters go with them."""
        if labels is None:
            columns = torch.zeros(x.shape[dim], dtype=torch.long)
        else:
            columns = self._columns(labels, dim, name)
        if isinstance(module, nn.GroupNorm):
            parts = compress(columns.reshape(module.num_groups, -1))
            self.classes.along(parts, [1], f"group norm reads across its channels ({name})")
        self._pass(name, columns)
        return spread(columns, layers.channel_dim(module, out), out.shape)

    def _pass(self, name: str, columns: Tensor) -> None:
        if name in self.between:
            self.classes.unite(self.between[name], columns, fixed=f"{name} also reads what no neuron owns")
        else:
            self.between[name] = columns

    def _grouped(self, name: str, module: Any, labels: Tensor | None, dim: int, out: Tensor) -> Tensor | None:
        """A grouped convolution: inputs and outputs of one of its groups are one neuron."""
        count = module.groups
        columns = torch.zeros(module.in_channels, dtype=torch.long)
        if labels is not None:
            columns = self._columns(labels, dim, name)
        columns = compress(columns.reshape(count, -1))
        why = f"grouped convolution ({name})" if columns.shape[1] > 1 else ""
        inner = self.classes.along(columns, [1], why)[:, 0]
        if bool((columns == 0).any()):
            self.classes.pin(columns, f"{name} also reads what no neuron owns")
            inner = torch.zeros_like(inner)
        rows = inner.repeat_interleave(module.out_channels // count)
        self._pass(name, rows)
        return spread(rows, dim, out.shape)

    def functional(
        self,
        weight: tuple[str, bool],
        labels: Tensor | None,
        x: Tensor,
        out: Tensor,
        bias: Tensor | None,
        where: str,
    ) -> Tensor | None:
        """A product with a matrix of parameters outside the call of a layer.

        Its rows are neurons that live and die with the result; what it reads stays, because no gate can
        sit there.

        Args:
            weight: name of the matrix, and whether it is transposed.
            labels: of the left factor, or None.
            x: the left factor.
            out: the product.
            bias: labels of what is added to it.
            where: name of the module that runs.
        """
        name, turned = weight
        if labels is not None:
            why = f"the weights of {self._holder(name)} are used outside the call of a layer"
            self.classes.pin(labels, why)
        rows = self.made_by(name, 0 if turned else 1)
        if rows is None:
            return None
        found = spread(rows, out.dim() - 1, out.shape)
        self.price(x.numel() * len(rows), rows, where)
        if bias is not None:
            self.classes.unite(core(found), core(compress(bias.expand(out.shape))))
        return found

    def made_by(self, name: str, dim: int) -> Tensor | None:
        """Labels of what a weight makes that is used outside the call of a layer, one per slice along `dim`.

        Args:
            name: of the parameter or buffer.
            dim: its dimension that runs over the outputs; None is returned where it is used otherwise as well.
        """
        holder = self._holder(name)
        self.order.setdefault(holder, len(self.order))
        module = self._owners.get(holder) if holder != name else None
        if module is not None:
            self.exposed[holder] = "its weights are used outside its call"
            plain = dim == layers.output_dim(module) and not layers.is_grouped(module)
            return self.rows(holder, module) if plain else None
        if name not in self.raw:
            tensor = self._tensor(name)
            if not self._saved(name):
                return None
            self.raw[name] = spread(self.classes.new(tensor.shape[dim]), dim, tensor.shape)
        labels = self.raw[name]
        if self.classes.is_raw(labels) or varying(labels) not in ((dim,), ()):
            return None
        return labels.movedim(dim, 0).flatten(1)[:, 0].clone()

    def _holder(self, name: str) -> str:
        """The layer that holds a parameter, else the parameter itself."""
        owner = name.rpartition(".")[0]
        return owner if owner in self._owners else name

    def _saved(self, name: str) -> bool:
        """Whether files hold a tensor; else a loaded model would have it whole."""
        owner, _, own = name.rpartition(".")
        return own not in self._modules[owner]._non_persistent_buffers_set

    def _tensor(self, name: str) -> Tensor:
        owner, _, own = name.rpartition(".")
        return getattr(self._modules[owner], own)

    def note_rule(self, labels: Tensor | None, rule: str) -> None:
        """Remember that a rule of the user's own had a say in what these labels mean."""
        if labels is not None:
            self.ruled.append((core(labels), rule))

    def close(self) -> None:
        """Keep what could not be seen to the end.

        That is the width of layers whose weights the code reaches without calling them; and whatever
        vanished on the way, when some layer was only ever given empty tensors and may have read it.
        """
        blind = sorted(self._starved - self._fed)
        for labels in self._vanished if blind else ():
            self.classes.pin(labels, f"the example gives {blind[0]} nothing to read, so who reads it is unknown")
        for name, why in self.exposed.items():
            if name in self.consumed:
                self.classes.pin(self.consumed[name], f"{why} ({name})")

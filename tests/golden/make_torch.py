"""Golden values of the training engine from PyTorch: python3 make_torch.py OUT.bin [lora]

Each network is written here in plain PyTorch, with the parameter names and shapes of allmerge's
presets. A case holds the inputs, labels, initial parameters, logits, loss, every gradient tensor,
the losses of 20 steps of SGD and the parameters after them. Format: u32 count of records, then
records: u32 name length, name, u32 elements, f32 elements (little endian). Made with PyTorch 1.13.0
(Debian python3-torch) in f64 from f32 values, one thread.

With `lora` the networks have low-rank adapters on every linear and convolution, W x + s B A x, as PEFT computes
them; all but adapters and head is frozen, and gradients and steps are of these alone. SPDX-License-Identifier: BSD-3-Clause"""
import struct
import sys

import torch
import torch.nn.functional as F

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
STEPS, LR, BATCH, CLASSES = 20, 0.05, 6, 5


def linear(p, name, x):
    y = F.linear(x, p[name + ".weight"], p.get(name + ".bias"))
    if name + ".lora_A.weight" in p:
        y = y + p["scale"] * F.linear(F.linear(x, p[name + ".lora_A.weight"]), p[name + ".lora_B.weight"])
    return y


def conv(p, name, x, **how):
    y = F.conv2d(x, p[name + ".weight"], p.get(name + ".bias"), **how)
    if name + ".lora_A.weight" in p:
        b = p[name + ".lora_B.weight"][:, :, None, None]
        y = y + p["scale"] * F.conv2d(F.conv2d(x, p[name + ".lora_A.weight"], **how), b)
    return y


def layer_norm(p, name, x, eps):
    return F.layer_norm(x, x.shape[-1:], p[name + ".weight"], p[name + ".bias"], eps)


def rms_norm(p, name, x, eps):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * p[name + ".weight"]


def rotate(x, base):  # x [B,H,T,D]
    T, D = x.shape[-2:]
    angle = torch.outer(torch.arange(T, dtype=x.dtype), base ** (-torch.arange(0, D, 2, dtype=x.dtype) / D))
    c, s = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
    u, v = x[..., : D // 2], x[..., D // 2:]
    return x * c + torch.cat([-v, u], -1) * s


def attention(x, heads, groups, causal, base):
    B, T, W = x.shape
    D = W // (heads + 2 * groups)
    q, k, v = x.split([heads * D, groups * D, groups * D], -1)
    q, k, v = (t.view(B, T, -1, D).transpose(1, 2) for t in (q, k, v))
    if base:
        q, k = rotate(q, base), rotate(k, base)
    k, v = (t.repeat_interleave(heads // groups, 1) for t in (k, v))
    s = q @ k.transpose(-1, -2) / D ** 0.5
    if causal:
        s = s.masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf)
    return (s.softmax(-1) @ v).transpose(1, 2).reshape(B, T, -1)


def block(p, i, x, heads, groups, causal, base, norm, act):
    n = f"blocks.{i}."
    x = x + linear(p, n + "proj", attention(linear(p, n + "qkv", norm(p, n + "norm1", x)), heads, groups, causal, base))
    h = norm(p, n + "norm2", x)
    if act == "gated":
        gate, up = linear(p, n + "gate_up", h).chunk(2, -1)
        h = F.silu(gate) * up
    else:
        h = F.gelu(linear(p, n + "up", h), approximate=act)
    return x + linear(p, n + "down", h)


def mlp(p, x, running):
    for i in range(2):
        x = F.gelu(linear(p, f"layers.{i}", x))
    return x


def cnn(p, x, running):
    x = x.view(-1, 1, 8, 8)
    for i in range(2):
        x = conv(p, f"conv.{i}", x, padding=1)
        if f"norm.{i}.weight" in p:
            mean, var = running[f"norm.{i}.running_mean"], running[f"norm.{i}.running_var"]
            x = F.batch_norm(x, mean, var, p[f"norm.{i}.weight"], p[f"norm.{i}.bias"], running["training"], 0.1,
                             1e-5)
        x = F.max_pool2d(F.relu(x), 2)
    return F.relu(linear(p, "hidden", x.permute(0, 2, 3, 1).flatten(1)))  # channels last


def vit(p, x, running):
    x = conv(p, "patch", x.view(-1, 1, 8, 8), stride=4).flatten(2).transpose(1, 2)
    x = torch.cat([p["class.weight"].expand(len(x), 1, -1), x], 1) + p["position.weight"]
    for i in range(2):
        x = block(p, i, x, 2, 2, False, 0, lambda *a: layer_norm(*a, 1e-6), "none")
    return layer_norm(p, "norm", x, 1e-6)[:, 0]


def gpt(p, x, running):
    x = p["token.weight"][x.long()] + p["position.weight"]
    for i in range(2):
        x = block(p, i, x, 2, 2, True, 0, lambda *a: layer_norm(*a, 1e-5), "tanh")
    return layer_norm(p, "norm", x, 1e-5)


def llama(p, x, running):
    x = p["token.weight"][x.long()]
    for i in range(2):
        x = block(p, i, x, 4, 2, True, 10000, lambda *a: rms_norm(*a, 1e-6), "gated")
    return rms_norm(p, "norm", x, 1e-6)


def transformer(width, hidden, qkv, bias, gated, norms):
    shapes = {}
    for i in range(2):
        n = f"blocks.{i}."
        for what, out, into in (("qkv", qkv, width), ("proj", width, width),
                                ("gate_up" if gated else "up", 2 * hidden if gated else hidden, width),
                                ("down", width, hidden)):
            shapes[n + what + ".weight"] = (out, into)
            if bias:
                shapes[n + what + ".bias"] = (out,)
        for norm in ("norm1", "norm2"):
            for what in norms:
                shapes[f"{n}{norm}.{what}"] = (width,)
    for what in norms:
        shapes["norm." + what] = (width,)
    return shapes


NORM = ("weight", "bias")
CASES = {  # network, features or tokens, vocabulary, width of the head's input, shapes
    "mlp": (mlp, 7, 0, 6, {"layers.0.weight": (8, 7), "layers.0.bias": (8,), "layers.1.weight": (6, 8),
                           "layers.1.bias": (6,)}),
    "cnn": (cnn, 64, 0, 7, {"conv.0.weight": (3, 1, 3, 3), "conv.1.weight": (4, 3, 3, 3),
                            **{f"norm.{i}.{w}": (3 + i,) for i in range(2) for w in NORM},
                            "hidden.weight": (7, 16), "hidden.bias": (7,)}),
    "vit": (vit, 64, 0, 8, {"patch.weight": (8, 1, 4, 4), "patch.bias": (8,), "class.weight": (8,),
                            "position.weight": (5, 8), **transformer(8, 12, 24, True, False, NORM)}),
    "gpt": (gpt, 9, 11, 8, {"token.weight": (11, 8), "position.weight": (9, 8),
                            **transformer(8, 12, 24, True, False, NORM)}),
    "llama": (llama, 9, 11, 8, {"token.weight": (11, 8), **transformer(8, 10, 16, False, True, NORM[:1])}),
}


# Case, scale: lora_alpha / r, or lora_alpha / sqrt(r) of use_rslora. The convolutions have biases, no norms.
RANK = 2
LORA = {"mlp": 1.5, "cnn": 0.75, "vit": 0.5, "gpt": 1 / RANK ** 0.5, "llama": 0.5}  # larger ones make chaotic steps


def with_adapters(name):
    net, features, vocabulary, width, shapes = CASES[name]
    if name == "cnn":
        shapes = {k: s for k, s in shapes.items() if "norm" not in k} | {"conv.0.bias": (3,), "conv.1.bias": (4,)}
    adapters = {}
    for key, s in shapes.items():
        module = key[:-len(".weight")]
        if key.endswith(".weight") and len(s) > 1 and module not in ("class", "position", "token"):
            adapters[module + ".lora_A.weight"] = (RANK, *s[1:])
            adapters[module + ".lora_B.weight"] = (s[0], RANK)
    return net, features, vocabulary, width, shapes | adapters


def f32(x):
    return x.float().double()


def run(name, put, lora):
    net, features, vocabulary, width, shapes = with_adapters(name) if lora else CASES[name]
    torch.manual_seed(len(name) * 1000 + features)
    p = {}
    for key in sorted(shapes):
        is_norm = "norm" in key and key.endswith("weight")
        p[key] = f32(0.4 * torch.randn(shapes[key]) + (1.0 if is_norm else 0.0))
    running = {"training": False}
    for i in range(2 if name == "cnn" and not lora else 0):
        running[f"norm.{i}.running_mean"] = torch.zeros(3 + i)
        running[f"norm.{i}.running_var"] = torch.ones(3 + i)
    p["head.weight"] = f32(0.5 * torch.randn(CLASSES, width))
    p["head.bias"] = f32(0.5 * torch.randn(CLASSES))
    is_lm = name in ("gpt", "llama")
    x = torch.randint(0, vocabulary, (BATCH, features)).double() if vocabulary else f32(torch.randn(BATCH, features))
    y = torch.randint(0, CLASSES, (BATCH, features) if is_lm else (BATCH,))
    if is_lm:
        y[:, 2] = -1  # the same number of counted labels in every sample
    put("x", x)
    put("y", y)
    for key in p:
        put("start." + key, p[key])
    moved = {k: t.requires_grad_() for k, t in p.items() if not lora or "lora_" in k or k.startswith("head.")}
    if lora:
        p["scale"] = LORA[name]

    def loss_of(smoothing):
        z = linear(p, "head", net(p, x, running))
        loss = F.cross_entropy(z.reshape(-1, CLASSES), y.reshape(-1), ignore_index=-1, label_smoothing=smoothing)
        return z, loss

    z, loss = loss_of(0.0)
    put("probabilities", z.softmax(-1))
    put("loss", loss)
    for key, g in zip(moved, torch.autograd.grad(loss, list(moved.values()))):
        put("gradient." + key, g)
    running["training"] = True
    losses = []
    for _ in range(STEPS):
        loss = loss_of(0.1)[1]
        losses.append(loss.detach())
        for key, g in zip(moved, torch.autograd.grad(loss, list(moved.values()))):
            p[key].data -= LR * g
    put("losses", torch.stack(losses))
    for key in moved:
        put("end." + key, p[key])
    for key in running:
        if key != "training":
            put("end." + key, running[key])


def main():
    records = []
    lora = sys.argv[2:] == ["lora"]
    for name in CASES:
        case = ("lora-" if lora else "") + name
        run(name, lambda key, x: records.append((f"{case}.{key}".encode(), x.detach().float().reshape(-1))), lora)
    with open(sys.argv[1], "wb") as out:
        out.write(struct.pack("<I", len(records)))
        for key, x in records:
            out.write(struct.pack("<I", len(key)) + key + struct.pack("<I", x.numel()))
            out.write(struct.pack(f"<{x.numel()}f", *x.tolist()))


main()

"""Merge methods of the threshold and random family in numpy, straight from their definitions.

Every function takes the base and the models of one unit (a tensor, or all of them end to end) as
float64 arrays and gives the merged one. Ties in magnitude go to the lowest index, like allmerge's.
SPDX-License-Identifier: BSD-3-Clause
"""
import numpy as np

MASK = (1 << 64) - 1


# ---- random numbers: mpi/rng.h ----

def mix64(h: int) -> int:
    h = ((h ^ (h >> 33)) * 0xFF51AFD7ED558CCD) & MASK
    h = ((h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53) & MASK
    return h ^ (h >> 33)


def hash64(data: bytes, seed: int) -> int:
    h = 0xCBF29CE484222325 ^ mix64((seed + 0x9E3779B97F4A7C15) & MASK)
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return mix64(h ^ len(data))


def random_u32(seed: int, method: str, model: int, tensor: str, n: int,
               first: int = 0) -> np.ndarray:
    """n words that the method draws for a model's tensor, from word `first`, a multiple of 4."""
    word = lambda value, h: hash64(value.to_bytes(8, "little"), h)  # noqa: E731
    h = hash64(method.encode(), word(seed, 0))
    h = hash64(tensor.encode(), word(model, word(0, h)))
    stream = word(h, 1)
    index = np.arange((n + 3) // 4, dtype=np.uint64) + np.uint64(first // 4)
    low32 = np.uint64(0xFFFFFFFF)
    c = [index & low32, index >> np.uint64(32), np.full_like(index, stream & 0xFFFFFFFF),
         np.full_like(index, stream >> 32)]
    k0, k1 = h & 0xFFFFFFFF, h >> 32
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), b & low32,
             (a >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), a & low32]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, axis=1).ravel()[:n]


def random_quads(seed: int, method: str, model: int, tensor: str, n: int) -> np.ndarray:
    """Four draws of 32 bits from each word: its bytes, lowest first, are their upper 8 bits; the lower
    24 are those of the words from 2^62 on."""
    words = random_u32(seed, method, model, tensor, (n + 3) // 4)
    upper = np.stack([words >> np.uint64(8 * k) & np.uint64(0xFF) for k in range(4)], axis=1).ravel()[:n]
    lower = random_u32(seed, method, model, tensor, n, 1 << 62) & np.uint64(0xFFFFFF)
    return upper << np.uint64(24) | lower


# ---- sparse task vectors ----

def magnitude(delta: np.ndarray) -> np.ndarray:
    return np.abs(delta).astype("f4")


def top(delta: np.ndarray, density: float, paper: bool) -> np.ndarray:
    n = delta.size
    if density >= 1 or density <= 0:
        return delta * (density > 0)
    key = magnitude(delta)
    if paper:
        return delta * (key >= np.sort(key)[n - int(density * n) - 1])
    mask = np.zeros(n)
    mask[np.argsort(-key, kind="stable")[:max(1, int(density * n))]] = 1
    return delta * mask


def band_of_row(delta: np.ndarray, density: float, gamma: float, paper: bool) -> np.ndarray:
    n = delta.size
    high, keep = int(gamma * n), int(density * n)
    order = np.argsort(magnitude(delta), kind="stable")
    mask = np.zeros(n)
    if paper:
        mask[order[:n - high][max(n - high - keep, 0):]] = 1
        return delta * mask
    if density >= 1:
        return delta
    low = n - keep - high
    if low < 0:
        high, low = high + low, 0
    mask[order[low:-high]] = 1  # empty when high is 0
    return delta * mask


def band(delta: np.ndarray, density: float, gamma: float, cols: int, paper: bool) -> np.ndarray:
    if not paper:
        return band_of_row(delta, density, gamma, False)
    if delta.size == 1:
        return delta
    rows = delta.reshape(-1, cols)
    return np.concatenate([band_of_row(row, density, gamma, True) for row in rows])


def by_chance(delta: np.ndarray, p: np.ndarray, word: np.ndarray, own_factor: bool) -> np.ndarray:
    kept = word < np.floor(p * 2.0 ** 32)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(kept, delta / p if own_factor else delta, 0)


def rank_chances(delta: np.ndarray, density: float, epsilon: float, shape: list) -> np.ndarray:
    """Ranks run along the second dimension; along a vector."""
    rows = magnitude(delta).reshape(shape if len(shape) > 1 else [1, -1])
    rank = np.argsort(np.argsort(rows, axis=1, kind="stable"), axis=1, kind="stable")
    part = rank / (rows.shape[1] - 1) if rows.shape[1] > 1 else np.full(rank.shape, 0.5)
    return (density - epsilon + part * 2 * epsilon).ravel()


# ---- consensus ----

def restore_norm(kept: np.ndarray, delta: np.ndarray) -> np.ndarray:
    before, after = np.abs(delta).sum(), np.abs(kept).sum()
    return kept if before < 1e-7 or after < 1e-7 else kept * (before / after)


def combine(deltas: list, weights: list, elects: bool, normalize: bool, paper: bool,
            largest: bool = False) -> np.ndarray:
    """The merged task vector."""
    d, w = np.array(deltas), np.array(weights)[:, None]
    if not elects:
        total = w.sum()
        return (w * d).sum(0) / (total if normalize and abs(total) >= 1e-8 else 1)
    if paper:
        sign = np.sign(d.sum(0))
        sign[sign == 0] = 1 if sign.sum() > 0 else -1
        agree = np.sign(d) == sign
    else:
        vote = np.zeros(d.shape[1], "f4")  # weighted, in f32, in the order of the recipe
        for t, weight in enumerate(weights):
            vote = vote + d[t].astype("f4") * np.float32(weight)
        sign = np.where(vote >= 0, 1, -1)
        agree = np.sign(w * d) == sign
    if largest:
        return sign * np.max(np.where(agree, w * d * sign, 0), axis=0, initial=0)
    out, total = (w * d * agree).sum(0), (w * agree).sum(0)
    return out / np.where(np.abs(total) < 1e-8, 1, total) if normalize else out


# ---- others ----

def sce(deltas: list, topk: float, paper: bool) -> np.ndarray:
    d = np.array(deltas)
    if topk < 1:
        var = ((d - d.mean(0)) ** 2).mean(0)
        var = np.where((d == d[0]).all(0), 0, var).astype("f4")
        varying = np.count_nonzero(var)
        k = int(varying * topk) if paper else int(np.float32(varying) * np.float32(topk))
        mask = np.zeros(var.size)
        mask[np.argsort(-var, kind="stable")[:k]] = 1
        d = d * mask
    energy = (d ** 2).mean(1)
    least = 0 if paper else 1e-6
    equal = energy.sum() == 0 or energy.sum() < least
    w = (np.full(len(d), 1 / len(d)) if equal else energy / energy.sum())[:, None]
    m = np.sign(d) == np.where(d.sum(0) >= 0, 1, -1)
    out, by = (w * d * m).sum(0), np.maximum((w * m).sum(0), least)
    return np.where(by > 0, out / np.where(by > 0, by, 1), 0)


def ram(deltas: list, epsilon: float, r: float = 0, alpha: float = 0) -> np.ndarray:
    d = np.array(deltas)
    active = magnitude(d) > np.float32(epsilon)
    count = active.sum(0)
    shared, unique = (active & (count > 1)).sum(1), (active & (count == 1)).sum(1)
    factor = 1 + r * np.clip(shared / np.maximum(unique, max(epsilon, 1e-300)), 0, alpha)
    return (d * active * np.where(count == 1, factor[:, None], 1 / np.maximum(count, 1))).sum(0)


def emr(deltas: list, task: int = -1, sizes: list = ()) -> np.ndarray:
    """sizes: of the tensors, whose means then make the scale."""
    d = np.array(deltas)
    sign = np.where(d.sum(0) > 0, 1, -1)
    unified = sign * np.where(d * sign > 0, np.abs(d), 0).max(0)
    if task < 0:
        return unified
    masked = unified * (d[task] * unified > 0)
    share = np.concatenate([np.full(n, 1 / n) for n in sizes if n > 0]) if len(sizes) else 1.0
    total = (np.abs(masked) * share).sum()
    return masked * ((np.abs(d[task]) * share).sum() / total if total > 0 else 0)


def tall(deltas: list, lam: float, mask_lambda: list, agree: int, task: int = -1) -> np.ndarray:
    d = np.array(deltas)
    summed = lam * d.sum(0)
    uses = np.abs(d) > np.array(mask_lambda)[:, None] * np.abs(summed - d)
    return summed * (uses[task] if task >= 0 else uses.sum(0) >= agree)


def magmax(deltas: list) -> np.ndarray:
    best = np.zeros_like(deltas[0])
    for d in deltas:
        best = np.where(np.abs(d) >= np.abs(best), d, best)
    return best


def pcb(deltas: list, weights: list, ratio: float) -> np.ndarray:
    d = np.array(deltas)
    models, n = d.shape
    size = np.sort(magnitude(d).astype("f8"), axis=1)
    low, high = size[:, [int(n * 1e-4)]], size[:, [max(int(n * (1 - 1e-4) - 1), 0)]]
    clipped = np.clip(np.abs(d), low, high)
    place = np.where(high > low, (clipped - low) / np.where(high > low, high - low, 1), 0)
    score = np.exp(models * (place ** 2 - 1)) * np.tanh(d * d.sum(0))
    score = score.astype("f4").astype("f8")
    least = np.sort(score, axis=1)[:, [min(int(n * (1 - ratio)), n - 1)]]
    most = score.max(1, keepdims=True)
    part = np.where(most > least,
                    (np.maximum(score, least) - least) / np.where(most > least, most - least, 1),
                    score >= least)
    out = (np.array(weights)[:, None] * part * np.sign(d) * clipped).sum(0)
    return out / np.maximum(part.sum(0), 1e-12)


def arcee_fusion(base: np.ndarray, x: np.ndarray, cols: int) -> np.ndarray:
    def softmax(rows):
        e = np.exp(rows - rows.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True) + 1e-8
    p, q = softmax(x.reshape(-1, cols)), softmax(base.reshape(-1, cols))
    divergence = np.maximum((p * np.log(p / q)).sum(1, keepdims=True), 0)
    key = (np.abs(x - base).reshape(-1, cols) * divergence).ravel().astype("f4")
    q1, q2, q3 = (np.sort(key)[int(k * (x.size - 1) / 4)] for k in (1, 2, 3))
    return np.where(key >= q2 + np.float32(1.5) * (q3 - q1), x, base)

"""The contender "pytorch": `pytorch.py '{"threads": 1}'`. Speaks the lines of src/cli/bench/serve.ts."""

import json
import os
import signal
import sys
import time

THREADS = json.loads(sys.argv[1])["threads"]
# Before torch is loaded, which reads them once.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(THREADS)

# The parent's end is this one's too, without a trace.
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)

# What libraries print must not stand between the answers.
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def say(message):
    answers.write(json.dumps(message) + "\n")


try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    say({"unavailable": f"{sys.executable} cannot import torch: {error}"})
    sys.exit()

WARM_UP_SECONDS, WARM_UP_PASSES, WARM_SECONDS = 0.1, 2, 1.0


def timed(work):
    """Times single passes of `work` like `timed` in serve.ts."""
    state = {"last": None}

    def measure(order):
        if state["last"] is None:
            start, passes = time.perf_counter(), 0
            while True:
                work()
                passes += 1
                elapsed = time.perf_counter() - start
                if elapsed > WARM_SECONDS or (elapsed > WARM_UP_SECONDS and passes >= WARM_UP_PASSES):
                    break
        elif state["last"] < WARM_SECONDS:
            work()
        times = []
        while len(times) < order["passes"] or sum(times) < order["milliseconds"] / 1000:
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        state["last"] = sorted(times)[len(times) // 2]
        return times

    return measure


def noise(length, stream):
    """The numbers of src/cli/bench/noise.ts."""
    mask = 0xFFFFFFFF
    # torch has no products of unsigned 32 bits: 64 hold them where one factor is split.
    multiply = lambda h, c: ((h * (c & 0xFFFF)) + (((h * (c >> 16)) & 0xFFFF) << 16)) & mask
    h = (torch.arange(length, dtype=torch.int64) + ((stream + 1) * 0x9E3779B9 & mask)) & mask
    h = multiply(h ^ (h >> 16), 0x85EBCA6B)
    h = multiply(h ^ (h >> 13), 0xC2B2AE35)
    return ((h ^ (h >> 16)) >> 8).float() / 2**24 - 0.5


def noise_ids(length, vocab, stream):
    return torch.floor((noise(length, stream).double() + 0.5) * vocab).long()


def pick(values, count=8):
    """`count` values that are spread evenly over the whole."""
    values = values.detach().reshape(-1)
    return [values[i * len(values) // count].item() for i in range(count)]


def prepare_matmul(case):
    m, k, n = case["shape"]
    a, b = noise(m * k, 0), noise(k * n, 1)
    a = a.view(k, m).T if case["bench"] == "matmul_tn" else a.view(m, k)
    b = b.view(n, k).T if case["bench"] == "matmul_nt" else b.view(k, n)
    return pick(a @ b), timed(lambda: a @ b)


def prepare_attention(case):
    batch, length, heads, head_dim = case["shape"]
    backward = case["bench"] == "attention+backward"
    # (batch, length, heads, head_dim) in memory, as ours; torch wants heads before length.
    load = lambda stream: noise(batch * length * heads * head_dim, stream).view(batch, length, heads, head_dim)
    q, k, v, dout = (load(stream).transpose(1, 2) for stream in range(4))
    for x in (q, k, v):
        x.requires_grad_(backward)

    def forward():
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def work():
        if not backward:
            return [forward()]
        return torch.autograd.grad(forward(), (q, k, v), dout)

    sample = [x for result in work() for x in pick(result.transpose(1, 2))]
    return sample, timed(work)


class Llama(torch.nn.Module):
    """Tied embeddings, RMSNorm before each part, rotary positions in half-split order, SwiGLU."""

    def __init__(self, dim, layers, heads, kv_heads, ffn, vocab, length):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        kv_dim = self.head_dim * kv_heads
        stream = iter(range(1000))
        matrix = lambda rows, cols: torch.nn.Parameter(noise(rows * cols, next(stream)).view(rows, cols) * 2**-4)

        def ones():
            next(stream)
            return torch.nn.Parameter(torch.ones(dim))

        # The order is that of weightShapes in src/model/config.ts: each weight has the noise of its place.
        self.embed = matrix(vocab, dim)
        self.blocks = torch.nn.ParameterList()
        self.layers = []
        for _ in range(layers):
            layer = {
                "attention_norm": ones(),
                "q": matrix(dim, dim),
                "k": matrix(kv_dim, dim),
                "v": matrix(kv_dim, dim),
                "output": matrix(dim, dim),
                "mlp_norm": ones(),
                "gate": matrix(ffn, dim),
                "up": matrix(ffn, dim),
                "down": matrix(dim, ffn),
            }
            self.blocks.extend(layer.values())
            self.layers.append(layer)
        self.norm = ones()
        frequencies = 10000.0 ** (-torch.arange(0, self.head_dim, 2) / self.head_dim)
        angles = torch.outer(torch.arange(length), frequencies).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def rotate(self, x):
        first, second = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat((-second, first), dim=-1) * self.sin

    def split(self, x, heads):
        batch, length, _ = x.shape
        return x.view(batch, length, heads, self.head_dim).transpose(1, 2)

    def forward(self, ids):
        batch, length = ids.shape
        x = F.embedding(ids, self.embed)
        norm = lambda x, weight: F.rms_norm(x, (x.shape[-1],), weight, eps=1e-5)
        for layer in self.layers:
            h = norm(x, layer["attention_norm"])
            q = self.rotate(self.split(h @ layer["q"].T, self.heads))
            k = self.rotate(self.split(h @ layer["k"].T, self.kv_heads))
            v = self.split(h @ layer["v"].T, self.kv_heads)
            grouped = self.heads != self.kv_heads
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
            x = x + mixed.transpose(1, 2).reshape(batch, length, -1) @ layer["output"].T
            h = norm(x, layer["mlp_norm"])
            x = x + (F.silu(h @ layer["gate"].T) * (h @ layer["up"].T)) @ layer["down"].T
        return norm(x, self.norm) @ self.embed.T


def prepare_train(case):
    *shape, batch, length = case["shape"]
    vocab = shape[5]
    model = Llama(*shape, length)
    ids = noise_ids(batch * length, vocab, 0).view(batch, length)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)

    def step():
        optimiser.zero_grad(set_to_none=True)
        logits = model(ids)[:, :-1]
        loss = F.cross_entropy(logits.reshape(-1, vocab), ids[:, 1:].reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        return loss.item()

    return [step(), step()], timed(step)


PREPARE = {"matmul": prepare_matmul, "attention": prepare_attention, "train": prepare_train}


def main():
    torch.set_num_threads(THREADS)
    say({"ready": {"description": f"{torch.__version__}, CPU"}})
    current, measure = None, None
    for line in sys.stdin:
        order = json.loads(line)
        answer = {}
        try:
            if order["case"] != current:
                name = order["case"]["bench"].split("_")[0].split("+")[0]
                answer["sample"], measure = PREPARE[name](order["case"])
                current = order["case"]
            answer["times"] = measure(order)
        except Exception as error:
            answer = {"error": " ".join(str(error).split())}
        say(answer)


main()

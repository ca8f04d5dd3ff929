import { rope } from "../../src/ops/rope.js";
import { slice } from "../../src/ops/slice.js";
import { type CaseOptions, frozen, ids, Nd, type OpCase, opCase, trainable } from "./case.js";

interface Shape {
  readonly batch?: number;
  readonly seq: number;
  readonly heads?: number;
  readonly dim: number;
  /** Numbers of a head that are turned; all by default. */
  readonly rotary?: number;
  readonly position?: number;
  /** Of each sequence, in place of the one for all. */
  readonly positions?: readonly number[];
  readonly interleaved?: boolean;
}

/** Turns every pair of a head as the complex number (a, b) by cos + i·sin. */
function reference(
  { x, cos, sin }: Record<"x" | "cos" | "sin", Nd>,
  { position = 0, positions, interleaved, dim, rotary = dim }: Shape,
): Nd {
  const [batch = 0, seq = 0, heads = 0] = x.shape;
  const out = x.map((value) => value);
  for (let b = 0; b < batch; b++) {
    for (let t = 0; t < seq; t++) {
      for (let h = 0; h < heads; h++) {
        for (let i = 0; i < rotary / 2; i++) {
          const [first, second] = interleaved ? [2 * i, 2 * i + 1] : [i, i + rotary / 2];
          const [re, im] = [x.at(b, t, h, first), x.at(b, t, h, second)];
          const at = (positions?.[b] ?? position) + t;
          const [c, s] = [cos.at(at, i), sin.at(at, i)];
          out.set(re * c - im * s, b, t, h, first);
          out.set(re * s + im * c, b, t, h, second);
        }
      }
    }
  }
  return out;
}

function ropeCase(shape: Shape, extra: CaseOptions = {}): OpCase {
  const {
    batch = 1,
    seq,
    heads = 1,
    dim,
    rotary = dim,
    position = 0,
    positions,
    interleaved = false,
  } = shape;
  const angles = new Nd([Math.max(position, ...(positions ?? [])) + seq + 1, rotary / 2]).map((_, i) => {
    const [at, pair] = [Math.floor(i / (rotary / 2)), i % (rotary / 2)];
    return at * 10000 ** ((-2 * pair) / rotary);
  });
  const from = `${positions ?? position}${interleaved ? ", interleaved" : ""}`;
  return opCase({
    name: `(${batch}, ${seq}, ${heads}, ${rotary} of ${dim}) from ${from}`,
    inputs: (random) => ({
      x: trainable(random.normal([batch, seq, heads, dim])),
      cos: frozen(angles.map(Math.cos)),
      sin: frozen(angles.map(Math.sin)),
      starts: ids(positions ?? Array(batch).fill(position)),
    }),
    // The op writes in place, so it gets a copy.
    run: (tape, { x, cos, sin, starts }) =>
      rope(tape, slice(tape, x, 0, dim), cos, sin, { position, positions: positions && starts, interleaved }),
    reference: (x) => reference(x, shape),
    ...extra,
  });
}

export const ropeCases = [
  ...[false, true].flatMap((interleaved) => [
    ropeCase({ seq: 1, dim: 2, interleaved }),
    ropeCase({ seq: 3, dim: 6, heads: 2, interleaved }),
    ropeCase({ seq: 5, dim: 8, heads: 3, batch: 2, interleaved }),
    ropeCase({ seq: 2, dim: 14, position: 37, batch: 2, interleaved }),
    ropeCase({ seq: 17, dim: 64, heads: 2, position: 5, interleaved }),
    ropeCase({ seq: 1, dim: 64, heads: 5, position: 999, interleaved }),
    ropeCase({ seq: 3, dim: 10, heads: 2, batch: 3, positions: [7, 0, 41], interleaved }),
    ropeCase({ seq: 3, dim: 16, rotary: 12, heads: 2, batch: 2, position: 1, interleaved }),
  ]),
  ropeCase(
    { seq: 256, heads: 8, dim: 64 },
    { samples: 0, bench: { shape: [1, 256, 8, 64], bytes: 256 * 8 * 64 * 16, backward: 2.5 } },
  ),
];

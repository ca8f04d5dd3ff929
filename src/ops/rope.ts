import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import { formatShape, type Tensor } from "../tensor.js";
import { expectInteger, expectShape, expectTensor } from "./shapes.js";
import { passOn } from "./view.js";

export const ropeKernel = kernel({
  name: "rope",
  writes: ["x"],
  reads: ["cos", "sin", "positions?"],
  dims: [
    "batch",
    "seq",
    "heads",
    "head_dim",
    "rotary_dim",
    "position",
    "interleaved",
    "inverse",
    "has_positions",
  ],
  range: ({ batch, seq }) => batch * seq,
  grid: ({ batch, seq, heads, rotary_dim }) =>
    linearGrid(Math.ceil((batch * seq * heads * rotary_dim) / 512)),
});

/** Where the rows stand and how a head's numbers are paired. */
export interface RopeOptions {
  /** Position of the first row of every batch element; 0 by default. */
  readonly position?: number;
  /** The same for each of them: u32 (batch), whose rows the tables must have, which the caller checks. */
  readonly positions?: Tensor | undefined;
  /** Pairs (2i, 2i + 1), as in the paper; by default halves (i, i + rotary_dim / 2), as in Hugging Face's models. */
  readonly interleaved?: boolean;
}

/**
 * Rotary position embedding (Su et al. 2021) of x (batch, seq, heads, head_dim), in place: no backward reads what x
 * was before, since to turn back takes the angles alone. Returns x as what it has become.
 * @param cos, sin tables (positions, rotary_dim / 2), see `passTables`: of each head the first rotary_dim numbers
 * are turned, the others stay
 */
export function rope(tape: Tape, x: Tensor, cos: Tensor, sin: Tensor, options: RopeOptions = {}): Tensor {
  expectTensor("rope", "x", x, "f32", 4);
  const [batch = 0, seq = 0, heads = 0, head_dim = 0] = x.shape;
  if (head_dim % 2 !== 0) throw new RangeError(`rope: head_dim of x ${formatShape(x.shape)} must be even`);
  expectTensor("rope", "cos", cos, "f32", 2);
  const length = cos.shape[0] ?? 0;
  const rotary_dim = 2 * (cos.shape[1] ?? 0);
  if (rotary_dim > head_dim) expectShape("rope", "cos", cos, [length, head_dim / 2]);
  expectShape("rope", "sin", sin, cos.shape);
  const position = options.position ?? 0;
  expectInteger("rope", "position", position, 0, length - seq);
  const { positions } = options;
  if (positions) expectShape("rope", "positions", positions, [batch], "u32");
  const args = {
    ...{ cos, sin, positions: positions ?? null, batch, seq, heads, head_dim, rotary_dim, position },
    ...{ interleaved: options.interleaved ? 1 : 0, has_positions: positions ? 1 : 0 },
  };
  tape.run(ropeKernel, { x, ...args, inverse: 0 });
  const out = x.reshape(x.shape);
  return tape.record(out, [x], () => {
    const dout = tape.grad(out);
    tape.run(ropeKernel, { x: dout, ...args, inverse: 1 });
    passOn(tape, x, dout);
  });
}

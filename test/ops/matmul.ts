import { columns } from "../../src/ops/columns.js";
import { linear, matmul } from "../../src/ops/matmul.js";
import { slice } from "../../src/ops/slice.js";
import { type CaseOptions, frozen, ids, Nd, type OpCase, opCase, trainable } from "./case.js";

interface Shape {
  readonly m: number;
  readonly k: number;
  readonly n: number;
  readonly batch?: readonly number[];
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
  readonly alpha?: number;
}

/** alpha · A · B, (batch, m, n). */
function product(a: Nd, b: Nd, shape: Shape): Nd {
  const { m, k, n, batch = [], transposeA, transposeB, alpha = 1 } = shape;
  const count = batch.reduce((x, y) => x * y, 1);
  const a3 = a.as([count, ...a.shape.slice(-2)]);
  const b3 = b.as([count, ...b.shape.slice(-2)]);
  const out = new Nd([count, m, n]);
  for (let e = 0; e < count; e++) {
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let p = 0; p < k; p++) {
          const left = transposeA ? a3.at(e, p, i) : a3.at(e, i, p);
          const right = transposeB ? b3.at(e, j, p) : b3.at(e, p, j);
          sum += left * right;
        }
        out.set(alpha * sum, e, i, j);
      }
    }
  }
  return out.as([...batch, m, n]);
}

function describe(shape: Shape): string {
  const { m, k, n, batch = [], transposeA = false, transposeB = false, alpha } = shape;
  const batches = batch.length ? `${batch.join("×")} × ` : "";
  const factor = alpha === undefined ? "" : `, alpha ${alpha}`;
  return `${batches}(${m}, ${k})${transposeA ? "ᵀ" : ""} · (${k}, ${n})${transposeB ? "ᵀ" : ""}${factor}`;
}

type MatmulExtra = CaseOptions & { readonly bias?: boolean; readonly into?: boolean };

function matmulCase(shape: Shape, extra: MatmulExtra = {}): OpCase {
  const { m, k, n, batch = [], transposeA = false, transposeB = false, alpha = 1 } = shape;
  const { bias: hasBias = false, into = false, ...rest } = extra;
  return opCase({
    name: `${describe(shape)}${hasBias ? " + bias" : ""}${into ? ", into" : ""}`,
    inputs: (random) => ({
      a: trainable(random.normal([...batch, ...(transposeA ? [k, m] : [m, k])])),
      b: trainable(random.normal([...batch, ...(transposeB ? [n, k] : [k, n])])),
      // Operands that a case does not use must get no gradient.
      bias: trainable(random.normal([n])),
      before: trainable(random.normal([...batch, m, n])),
    }),
    run: (tape, { a, b, bias, before }) =>
      matmul(tape, a, b, {
        transposeA,
        transposeB,
        alpha,
        ...(hasBias && { bias }),
        ...(into && { into: slice(tape, before, 0, n) }),
      }),
    reference: ({ a, b, bias, before }) =>
      product(a, b, shape).map(
        (value, i) => value + (hasBias ? bias.at(i % n) : 0) + (into ? before.flat(i) : 0),
      ),
    ...rest,
  });
}

interface LinearShape {
  readonly rows: readonly number[];
  readonly k: number;
  readonly n: number;
  readonly bias?: boolean;
  readonly residual?: boolean;
}

function linearReference(x: Nd, weight: Nd, bias?: Nd, residual?: Nd): Nd {
  const [n = 0, k = 0] = weight.shape;
  const out = product(x.matrix(), weight, { m: x.rows, k, n, transposeB: true });
  return out
    .map((value, i) => value + (bias?.at(i % n) ?? 0) + (residual?.flat(i) ?? 0))
    .as([...x.shape.slice(0, -1), n]);
}

function linearCase(shape: LinearShape, extra: CaseOptions = {}): OpCase {
  const { rows, k, n, bias: hasBias = false, residual: hasResidual = false } = shape;
  return opCase({
    name: `linear (${rows.join(", ")}, ${k}) to ${n}${hasBias ? " + bias" : ""}${hasResidual ? " + residual" : ""}`,
    inputs: (random) => ({
      x: trainable(random.normal([...rows, k])),
      weight: trainable(random.normal([n, k])),
      bias: trainable(random.normal([n])),
      residual: trainable(random.normal([...rows, n])),
    }),
    run: (tape, { x, weight, bias, residual }) =>
      linear(tape, x, weight, { ...(hasBias && { bias }), ...(hasResidual && { residual }) }),
    reference: ({ x, weight, bias, residual }) =>
      linearReference(x, weight, hasBias ? bias : undefined, hasResidual ? residual : undefined),
    ...extra,
  });
}

/** A result one column wider, filled from a second matrix: how a row is added to a model's vocabulary. */
function widened(rows: number, k: number, n: number): OpCase {
  return opCase({
    name: `linear (${rows}, ${k}) to ${n} with stride ${n + 1}, the last column from another weight`,
    inputs: (random) => ({
      x: trainable(random.normal([rows, k])),
      weight: trainable(random.normal([n, k])),
      row: trainable(random.normal([1, k])),
      index: ids([n]),
    }),
    run: (tape, { x, weight, row, index }) => {
      const out = linear(tape, x, weight, { stride: n + 1 });
      return columns(tape, out, linear(tape, x, row), index);
    },
    reference: ({ x, weight, row }) => {
      const all = new Nd([n + 1, k], [...weight.data, ...row.data]);
      return linearReference(x, all);
    },
  });
}

/** On each side of a tile's edges: 4 or 6 rows by 8 or 16 columns (wasm), 64 by 64 (WGSL). */
const edges = [
  [1, 1, 1],
  [1, 7, 1],
  [2, 3, 8],
  [3, 5, 9],
  [4, 4, 7],
  [5, 2, 16],
  [6, 1, 17],
  [7, 8, 3],
  [13, 17, 11],
  [64, 16, 64],
  [65, 17, 65],
  [63, 31, 66],
  [10, 9, 24],
  [11, 12, 25],
  [49, 5, 15],
] as const;

const transpositions = [false, true].flatMap((transposeA) =>
  [false, true].map((transposeB) => ({ transposeA, transposeB })),
);

const nonFinite = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY].flatMap((value) =>
  [1, 5].map((m) =>
    opCase({
      name: `${value} in (${m}, 6) · (9, 6)ᵀ`,
      inputs: (random) => ({
        a: frozen(random.normal([m, 6]).map((x, i) => (i === 2 ? value : x))),
        b: frozen(random.normal([9, 6])),
      }),
      run: (tape, { a, b }) => matmul(tape, a, b, { transposeB: true }),
      reference: ({ a, b }) => product(a, b, { m, k: 6, n: 9, transposeB: true }),
      wasmOnly: true,
    }),
  ),
);

export const matmulCases = [
  ...edges.map(([m, k, n]) => matmulCase({ m, k, n })),
  ...transpositions.flatMap((t) => [
    matmulCase({ m: 7, k: 13, n: 9, ...t }),
    matmulCase({ m: 3, k: 11, n: 6, ...t }),
    // One past the packed block, 512 deep or 512 wide, and past the 96 rows that it is multiplied with in a turn.
    matmulCase({ m: 5, k: 513, n: 19, ...t }, { samples: 24 }),
    matmulCase({ m: 97, k: 3, n: 513, ...t }, { samples: 24 }),
    // Up to eight rows are dot products, where B is transposed.
    ...[1, 2, 4, 8, 9].map((m) => matmulCase({ m, k: 35, n: 65, ...t }, { samples: 24 })),
    matmulCase({ m: 5, k: 6, n: 7, batch: [2, 3], ...t }, { into: true }),
    matmulCase({ m: 6, k: 9, n: 10, alpha: -0.5, ...t }, { bias: true }),
    matmulCase({ m: 2, k: 9, n: 10, alpha: 3, ...t }, { into: true }),
  ]),
  matmulCase({ m: 9, k: 513, n: 259, alpha: 0.25 }, { bias: true, samples: 4 }),
  matmulCase({ m: 9, k: 1025, n: 23 }, { into: true, samples: 24 }),
  matmulCase({ m: 3, k: 5, n: 4, batch: [3], transposeB: true }, { bias: true }),
  linearCase({ rows: [1], k: 1, n: 1 }),
  linearCase({ rows: [1], k: 37, n: 31, bias: true }),
  linearCase({ rows: [3], k: 6, n: 5, bias: true }),
  linearCase({ rows: [2, 7], k: 13, n: 9 }),
  linearCase({ rows: [2, 3, 4], k: 10, n: 8, bias: true }),
  linearCase({ rows: [2, 7], k: 13, n: 9, residual: true }),
  linearCase({ rows: [1], k: 20, n: 70, residual: true }),
  linearCase({ rows: [50], k: 7, n: 66, residual: true }, { samples: 24 }),
  linearCase({ rows: [3, 4], k: 6, n: 5, bias: true, residual: true }),
  widened(1, 7, 5),
  widened(9, 12, 11),
  ...nonFinite,
  linearCase(
    { rows: [256], k: 512, n: 512 },
    { samples: 0, bench: { shape: [256, 512, 512], flops: 2 * 256 * 512 * 512, backward: 3 } },
  ),
  linearCase(
    { rows: [1], k: 1024, n: 4096 },
    { samples: 0, bench: { shape: [1, 1024, 4096], bytes: 4 * 1024 * 4096 } },
  ),
];

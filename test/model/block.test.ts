import { afterAll, beforeAll, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { createBackend } from "../../src/backends/create.js";
import { add } from "../../src/ops/add.js";
import { matmul } from "../../src/ops/matmul.js";
import { Tape } from "../../src/tape.js";
import { Arena } from "../../src/tensor.js";

let backend: Backend;
beforeAll(async () => {
  backend = await createBackend({ kind: "wasm", threads: 1 });
});
afterAll(() => backend.dispose());

it.each([false, true])("keeps the gradient of a weight that a block meets first: %s", async (checkpoint) => {
  const gradients = async (blocks: boolean) => {
    const tape = new Tape(new Arena(backend), true, { checkpoint });
    const weight = tape.from(Float32Array.of(1, 2, 3, 4), [2, 2]);
    weight.requiresGrad = true;
    let x = tape.from(Float32Array.of(1, -1), [1, 2]);
    for (let i = 0; i < 3; i++) {
      const body = (input: typeof x) => add(tape, input, matmul(tape, input, weight));
      x = blocks ? tape.block(x, body) : body(x);
    }
    x.grad = tape.from(Float32Array.of(1, 0.5), [1, 2]);
    tape.backward();
    return Array.from(await tape.grad(weight).read());
  };
  expect(await gradients(true)).toEqual(await gradients(false));
});

it("with checkpoints keeps of a block no more than its input and result", async () => {
  const kept = (checkpoint: boolean) => {
    const arena = new Arena(backend);
    const tape = new Tape(arena, true, { checkpoint });
    const x = tape.from(new Float32Array(64 * 64), [64, 64]);
    x.requiresGrad = true;
    const before = arena.used;
    tape.block(x, (input) => add(tape, matmul(tape, matmul(tape, input, input), input), input));
    return arena.used - before;
  };
  const bytes = 64 * 64 * 4;
  expect([kept(false), kept(true)]).toEqual([3 * bytes, bytes]);
});

it("that does nothing passes its gradient through", async () => {
  for (const checkpoint of [false, true]) {
    const tape = new Tape(new Arena(backend), true, { checkpoint });
    const x = tape.from(Float32Array.of(1, 2), [1, 2]);
    x.requiresGrad = true;
    const doubled = add(tape, x, x);
    const out = tape.block(doubled, (input) => input);
    out.grad = tape.from(Float32Array.of(3, 4), [1, 2]);
    tape.backward();
    expect(Array.from(await tape.grad(x).read())).toEqual([6, 8]);
  }
});

it("with checkpoints refuses a result of another shape than its input", () => {
  const tape = new Tape(new Arena(backend), true, { checkpoint: true });
  const x = tape.from(Float32Array.of(1, 2, 3, 4), [2, 2]);
  x.requiresGrad = true;
  expect(() => tape.block(x, (input) => matmul(tape, input, tape.from(new Float32Array(6), [2, 3])))).toThrow(
    /^block: the result's shape \(2, 3\) must be the input's, \(2, 2\)/,
  );
});
